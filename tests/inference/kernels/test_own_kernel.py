"""A kernel of one's own, as CONTRIBUTING.md shows it: one file and one line of the registry."""

from pathlib import Path
from typing import Any

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro.infer import MCMC

import ppl_cnn
from ppl_cnn.inference.kernels.registry import KERNELS


def block_of(heading: str) -> dict[str, Any]:
    """What the first Python block under a heading of CONTRIBUTING.md defines."""
    text = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text()
    section = text.partition(f"\n## {heading}\n")[2]
    block = section.partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {"__name__": "contributed"}
    exec(compile(block, "CONTRIBUTING.md", "exec"), found)
    return found


CrankNicolson = block_of("Add a kernel")["CrankNicolson"]

SIGMA, TEMPERATURE = 3.0, 0.5
WEIGHTS = np.asarray([[0.2, -0.1], [0.0, 0.1]], np.float32)[..., None]


def test_a_kernel_of_ones_own_draws_the_shifted_gaussian(monkeypatch):
    """p = N(sigma^2 w / T, sigma^2 I), by its name on the command line."""
    monkeypatch.setitem(KERNELS, "pcn", CrankNicolson)
    response = ppl_cnn.ScoreFunction(lambda image: jnp.sum(WEIGHTS * image), WEIGHTS.shape)
    density = ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(SIGMA), TEMPERATURE)
    tree = ppl_cnn.draw(
        density, kernel="pcn", chains=4, draws=1000, thin=8, target_accept=0.4, progress=False
    )
    image = xr.Dataset({"x": tree["posterior/image"].astype(np.float64)})
    dims = ("chain", "draw")
    mean = (image.mean(dims) - SIGMA**2 * WEIGHTS / TEMPERATURE) / arviz_stats.mcse(image)
    deviation = (image.std(dims) - SIGMA) / arviz_stats.mcse(image, method="sd")
    # The largest of eight standard normal errors exceeds 4 with probability 5e-4.
    assert np.abs(mean["x"]).max() < 4
    assert np.abs(deviation["x"]).max() < 4
    assert tree["sample_stats/acceptance_rate"].mean() > 0.25
    np.testing.assert_allclose(
        tree["stein/image"],
        np.broadcast_to(SIGMA**2 * WEIGHTS / TEMPERATURE, tree["stein/image"].shape),
        atol=1e-5,
    )


def test_it_works_in_numpyros_mcmc_too():
    kernel = CrankNicolson(lambda z: 2.0 * z[0])
    mcmc = MCMC(kernel, num_warmup=300, num_samples=20_000, progress_bar=False)
    mcmc.run(jax.random.key(0), init_params=jnp.zeros(1))
    z = np.asarray(mcmc.get_samples()[:, 0], np.float64)[None]
    error = arviz_stats.mcse(xr.Dataset({"z": (("chain", "draw"), z)}))["z"]
    # A standard normal error exceeds 4 with probability 6e-5.
    assert abs(z.mean() - 2) < 4 * error
