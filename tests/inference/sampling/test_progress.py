"""What a run says, and what is refused before it begins."""

import arviz
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.resources import check_chains, check_store
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.starts.registry import parse_start

SCORE = ppl_cnn.ScoreFunction(jnp.sum, (2, 2, 1))
DENSITY = ppl_cnn.TiltedDensity(SCORE, ppl_cnn.WhiteNoise(1.0))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    ppl_cnn.draw(DENSITY, chains=2, draws=8, warmup=4, out=out, progress=False)
    return out


def test_without_progress_nothing_is_said(run, capfd):
    ppl_cnn.draw(DENSITY, chains=2, draws=8, warmup=4, out=run, progress=False)
    ppl_cnn.draw(DENSITY, chains=2, draws=4, kernel="resample:1000", progress=False)
    assert capfd.readouterr() == ("", "")


def test_fewer_draws_than_stored_are_said(run, capfd):
    tree = ppl_cnn.draw(DENSITY, chains=2, draws=5, warmup=4, out=run)
    said = capfd.readouterr().err
    assert "holds 8 draws" in said
    assert "the 5 asked for" in said
    assert tree["posterior"].sizes["draw"] == 8


def test_prior_and_posterior_can_be_plotted_together(run):
    tree = open_draws(run / "draws.zarr")
    prior = tree["prior/image"].values
    assert prior.shape == (2, 100, 2, 2, 1)
    assert abs(prior.std() - 1) < 4 / np.sqrt(2 * prior.size)
    np.testing.assert_allclose(tree["prior/response"], prior.sum(axis=(2, 3, 4)), rtol=1e-5)
    with matplotlib.rc_context({"backend": "Agg"}):
        arviz.plot_prior_posterior(tree, var_names=["response"], backend="none")


@pytest.mark.parametrize("chains", [1, 3, 7])
@pytest.mark.parametrize("start", ["two-sided", "two-sided:zero", "two-sided:anneal:4"])
def test_an_odd_number_of_chains_has_no_two_sides(chains, start, refused):
    with refused(chains, "even", kind=ArgumentError, argument="chains"):
        Sampling(chains=chains, start=parse_start(start))


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        ({"thin": 2**31 - 1}, ("days", f"thin={2**31 - 1}")),
        ({"chains": 2**30}, ("GB", f"chains={2**30}")),
        ({"kernel": ppl_cnn.Tempered(rungs=10**9)}, ("TB", "tempered:1000000000")),
    ],
)
def test_what_no_machine_has_is_refused_with_the_estimate(given, facts, refused):
    large = ppl_cnn.TiltedDensity(
        ppl_cnn.ScoreFunction(jnp.sum, (200, 200, 3)), ppl_cnn.WhiteNoise(1.0)
    )
    with refused(*facts, kind=ArgumentError):
        check_chains([large], Sampling(**given), draws=2**20)


def test_draws_that_the_disk_has_no_room_for_are_refused(tmp_path, refused):
    with refused("TB", "draws=2000000000", kind=ArgumentError, argument="draws"):
        check_store([DENSITY] * 300, chains=8, draws=2 * 10**9, out=tmp_path / "run")


@pytest.mark.parametrize("name", ["chains", "warmup", "thin"])
def test_counts_have_an_end(name, refused):
    with refused(name, 2**31, kind=ArgumentError, argument=name):
        Sampling(**{name: 2**31})
