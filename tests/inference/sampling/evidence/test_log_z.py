import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.integrate import dblquad

import ppl_cnn
from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.inference.importance import Estimate
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.evidence.evidence import evidence
from ppl_cnn.inference.sampling.evidence.log_z import (
    AnnealedEstimate,
    LogZ,
    Replicas,
    annealed_importance_sampling,
    class_offsets,
    reweighting,
    thermodynamic_integration,
)

SIGMA, TEMPERATURE = 2.0, 0.7


def slope():
    return np.random.default_rng(0).normal(size=(3, 2, 1)).astype(np.float32)


def linear_density():
    response = ppl_cnn.ScoreFunction(lambda x: jnp.sum(slope() * x), slope().shape)
    return ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(SIGMA), TEMPERATURE)


def bent(x):
    return 3 * jnp.sin(2 * x[0, 0, 0]) + x[0, 0, 0] * x[0, 1, 0] - 0.3 * jnp.sum(x**4)


def estimated(density, folder=None, **settings):
    settings = {"rungs": 8, "temperatures": 100, "draws": 600, "warmup": 200} | settings
    (found,) = evidence([density], out=folder, progress=False, **settings).values()
    return found


def errors(found, truth):
    every = (found.integrated, found.reweighted, found.annealed.log_z)
    return [(each.value - truth) / each.error for each in every]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def found(folder):
    """The estimates for the linear score."""
    return estimated(linear_density(), folder, draws=400)


def test_a_linear_response_has_the_closed_form(found):
    """log Z = s^2 |w|^2 / (2 T^2)."""
    truth = SIGMA**2 * (slope() ** 2).sum() / (2 * TEMPERATURE**2)
    # Each error is t-distributed with seven degrees of freedom or, of AIS, about normal.
    assert np.abs(errors(found, truth)).max() < 5
    assert found.agree
    assert found.annealed.effective > 20
    assert max(each.error for each in (found.integrated, found.reweighted)) < 0.03 * truth


@pytest.mark.long
def test_brute_force_in_two_dimensions():
    def integrand(b, a):
        f = 3 * math.sin(2 * a) + a * b - 0.3 * (a**4 + b**4)
        return math.exp(f - (a * a + b * b) / 2) / (2 * math.pi)

    truth = math.log(dblquad(integrand, -6, 6, -6, 6)[0])
    density = ppl_cnn.TiltedDensity(ppl_cnn.ScoreFunction(bent, (1, 2, 1)), ppl_cnn.WhiteNoise(1.0))
    found = estimated(density)
    # The corrected trapezoidal rule's own error is of fourth order in the rungs' distance.
    assert np.abs(errors(found, truth)[1:]).max() < 5
    assert abs(found.integrated.value - truth) < 5 * found.integrated.error + 0.01


def replicas_of(rungs=40, chains=6, draws=400, slope=2.0):
    """Exact draws of g = slope z on rungs N(b slope, 1)."""
    strengths = np.linspace(0, 1, rungs + 1)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(chains, draws, rungs + 1)) + slope * strengths
    return Replicas(strengths, slope * z, np.ones(rungs + 1), np.ones(rungs + 1))


@pytest.mark.long
def test_errors_are_those_of_repeated_runs():
    """Over independent sets of draws, errors in units of the standard error have variance 1."""
    scores = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        strengths = np.linspace(0, 1, 6)
        tilts = 2 * (rng.normal(size=(12, 50, 6)) + 2 * strengths)
        replicas = Replicas(strengths, tilts, np.ones(6), np.ones(6))
        for number, method in enumerate((thermodynamic_integration, reweighting)):
            value, error = method(replicas)
            scores.append((number, (value - 2.0) / error))
    for number in (0, 1):
        each = np.asarray([score for which, score in scores if which == number])
        # t with 11 degrees has variance 1.22; the mean square of 30 has a deviation of 0.4.
        assert abs(each.mean()) < 4 * 1.1 / math.sqrt(30)
        assert 0.3 < np.mean(each**2) < 2.8


def test_reweighting_solves_the_self_consistent_equations():
    from scipy.special import logsumexp

    replicas = replicas_of(rungs=3, chains=4, draws=50)
    values = replicas.tilts.ravel()
    exponents = values[:, None] * replicas.strengths
    normalisers = np.zeros(4)
    for _ in range(3000):  # MBAR's own fixed point, as published
        mixture = logsumexp(exponents - normalisers, axis=1) + math.log(200)
        normalisers = logsumexp(exponents - mixture[:, None], axis=0)
        normalisers -= normalisers[0]
    assert reweighting(replicas).value == pytest.approx(normalisers[-1], abs=1e-5)


def test_mean_weights_are_unbiased_however_short_the_climb():
    """E[weight] = Z with two temperatures, where the effective number is small."""
    density = linear_density()
    truth = SIGMA**2 * (slope() ** 2).sum() / (2 * TEMPERATURE**2)
    strong = ppl_cnn.TiltedDensity(density.unit, density.reference, temperature=4.0)
    truth *= (TEMPERATURE / 4.0) ** 2
    strengths = np.asarray([0.0, 0.5, 1.0])
    replicas = Replicas(strengths, np.zeros((4, 2, 3)), np.full(3, 0.5), np.full(3, 1.5))
    found = annealed_importance_sampling(
        strong, strong.params, replicas, particles=4000, temperatures=2, seed=1
    )
    assert found.log_z.value == pytest.approx(truth, abs=4 * found.log_z.error)
    assert found.log_z.error < 0.1
    # One gradient at the start, and at each of two strengths 1 to 5 of half a radian each.
    assert 3 * 4000 <= found.gradients <= 11 * 4000


def test_draws_of_other_kernels_are_refused(refused):
    with refused("tempered", kind=MismatchError):
        Replicas.of(xr.DataTree())


@pytest.mark.usefixtures("found")
def test_draws_of_too_few_chains_are_refused(folder, refused):
    draws = open_draws(folder / "draws.zarr").isel(chain=slice(3), missing_dims="ignore")
    with refused("4", "3", kind=ArgumentError, argument="chains"):
        Replicas.of(draws)


@pytest.mark.parametrize(
    ("argument", "value"), [("chains", 3), ("particles", 1), ("temperatures", 0)]
)
def test_too_few_are_refused_before_anything_is_sampled(argument, value, refused, tmp_path):
    with refused(value, kind=ArgumentError, argument=argument):
        estimated(linear_density(), tmp_path / "run", **{argument: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argument", "particles", "temperatures"), [("particles", 1, 5), ("temperatures", 8, 0)]
)
def test_annealing_needs_particles_and_temperatures(argument, particles, temperatures, refused):
    counts = {"particles": particles, "temperatures": temperatures}
    with refused(counts[argument], kind=ArgumentError, argument=argument):
        density = linear_density()
        annealed_importance_sampling(density, density.params, replicas_of(), **counts, seed=0)


def test_the_folder_holds_the_estimates_as_json(found, folder):
    record = json.loads((folder / "evidence.json").read_text())["linear_density.<locals>.<lambda>"]
    assert record == json.loads(json.dumps(found.record()))
    assert record["reweighting"]["error"] == found.reweighted.error
    assert record["annealed importance sampling"]["gradients"] == found.annealed.gradients


def test_class_offsets_are_those_of_equal_priors():
    """exp(f_c - log Z_c) / C is p(x|c) p(c) / q(x)."""
    none = AnnealedEstimate(Estimate(0.0, 1.0), 1.0, 0)
    values = {"a": 1.0, "b": -2.0, "c": 0.5}
    found = {name: LogZ(Estimate(9.0, 1.0), Estimate(z, 1.0), none) for name, z in values.items()}
    expected = {name: -z - math.log(3) for name, z in values.items()}
    assert class_offsets(found) == pytest.approx(expected)
