"""The page of chains under a generator: pictures first, and draws of q beside draws of p."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

import ppl_cnn
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.keys import reference_key
from ppl_cnn.inference.sampling.resampling.proposals import SHOWN, latents, prior_shape

SHAPE = (6, 5, 1)
GREY = 90.0


def shades(z):
    rows, cols = jnp.linspace(-1.0, 1.0, 6)[:, None], jnp.linspace(0.0, 2.0, 5)[None, :]
    return (128 + 100 * jnp.sin(2 * rows * z[0] + cols * z[1]))[..., None]


@pytest.fixture(scope="module")
def density():
    score = ppl_cnn.ScoreFunction(lambda image: jnp.mean(image) / 20, SHAPE, mean=(GREY,))
    return ppl_cnn.TiltedDensity(score, ppl_cnn.GeneratorReference.of(shades, latent_shape=(2,)))


@pytest.fixture(scope="module")
def run(tmp_path_factory, density):
    out = tmp_path_factory.mktemp("runs") / "run"
    ppl_cnn.draw(density, kernel="langevin", chains=4, draws=40, warmup=20, out=out, progress=False)
    return out


@pytest.fixture(scope="module")
def page(run, parsed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppl_cnn.inference.report.section.plots_html", lambda *given: "")
        return parsed(ppl_cnn.report(run).read_text())


def test_a_run_stores_draws_of_its_generator(run, density):
    tree = open_draws(run / "draws.zarr")
    chains, draws = prior_shape(density, 4)
    assert chains * draws >= SHOWN
    z = latents(density, reference_key(0), np.arange(chains * draws))
    images = tree["prior/image"].values
    flat = images.reshape(-1, *images.shape[2:])
    np.testing.assert_allclose(flat, jax.jit(jax.vmap(density.push))(z), atol=1e-3)
    responses = jax.jit(jax.vmap(density.unit.score, (None, 0)))(density.unit.params, flat)
    np.testing.assert_allclose(tree["prior/response"].values.ravel(), responses, 1e-4, 1e-3)


def test_the_page_begins_with_draws_as_they_are(page, run):
    assert page.source.index('class="sheet"') < page.source.index('alt="Mean"')
    assert "<strong>40 draws</strong>" in page.source
    assert "pixels are as they are, 0 to 255" in page.text
    assert "about the mean" not in page.text
    assert "One draw" not in page.text
    mean = open_draws(run / "draws.zarr")["posterior/image"].values.mean(axis=(0, 1)) + GREY
    np.testing.assert_allclose(page.image("Mean"), mean[..., 0], atol=0.51)


def test_the_page_shows_q_beside_p(page, run):
    assert page.text.count("What the tilt changed") == 1
    assert "q, the reference generator:" in page.text
    assert "Within and across starts" in page.text
    first = open_draws(run / "draws.zarr")["prior/image"].values[0, 0, ..., 0] + GREY
    np.testing.assert_allclose(page.image("draw of q, 0"), first.clip(0, 255), atol=0.51)
    p = [attrs for attrs in page.all("img") if attrs["alt"].startswith("draw of p")]
    assert len(p) == 16


@pytest.mark.usefixtures("unplotted")
def test_the_page_says_what_the_generator_was_trained_on(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    assert record["generator"] == {}
    record["generator"] = {"data": "<b>clothes", "training_images": 60_000}
    (folder / "run.json").write_text(json.dumps(record))
    said = ppl_cnn.report(folder).read_text()
    assert "trained on 60,000 images of &lt;b&gt;clothes, without labels" in re.sub(
        r"\s+", " ", said
    )


@pytest.mark.usefixtures("unplotted")
def test_a_run_from_before_has_a_page_and_resumes(run, tmp_path, density):
    folder = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(folder / "draws.zarr" / "prior")
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(folder / "draws.zarr")
    ppl_cnn.draw(
        density, kernel="langevin", chains=4, draws=44, warmup=20, out=folder, progress=False
    )
    assert "What the tilt changed" not in ppl_cnn.report(folder).read_text()
