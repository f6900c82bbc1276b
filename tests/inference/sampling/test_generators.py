"""Sampling under a generator's reference: known answers, starts at images, runs and their pages."""

import json
import subprocess
import sys
from pathlib import Path

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy import stats

import ppl_cnn
from ppl_cnn.errors import MismatchError
from ppl_cnn.inference.importance import Weights
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.starts.inversion import DEVIATION, POINTS, STEPS
from ppl_cnn.inference.sampling.starts.registry import as_start

EXAMPLE = Path(__file__).parents[2] / "models"
SHAPE = (3, 4, 1)
ROOT = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32) * 20
SLOPE = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32) / 40
QUIET = {"progress": False}


def flat(z):
    """G(z) = 100 + R z, a plane among images."""
    return 100 + (z @ jnp.asarray(ROOT)).reshape(SHAPE)


def bent(z):
    """A nonlinear G of a two-dimensional z."""
    rows, cols = jnp.linspace(-1.0, 1.0, 3)[:, None], jnp.linspace(0.0, 2.0, 4)[None, :]
    return (128 + 80 * jnp.sin(2 * rows * z[0] + cols * z[1] ** 2))[..., None]


def linear(image):
    return jnp.sum(jnp.asarray(SLOPE) * image)


def curved(image):
    return jnp.sum(jnp.asarray(SLOPE) * image) + jnp.sum(jnp.cos(image / 40))


def density_of(generator, score=linear, temperature=1.0):
    reference = ppl_cnn.GeneratorReference.of(generator, latent_shape=(2,))
    return ppl_cnn.TiltedDensity(ppl_cnn.ScoreFunction(score, SHAPE), reference, temperature)


def means(values):
    """Means of values (chain, draw, number), with their Monte Carlo standard errors."""
    values = xr.DataArray(np.asarray(values, np.float64), dims=("chain", "draw", "number"))
    error = arviz_stats.mcse(xr.Dataset({"x": values}))["x"]
    return values.mean(("chain", "draw")).values, error.values


def far(values, truth):
    """The largest error of a mean, in standard errors."""
    mean, error = means(values)
    return np.abs((mean - truth) / error).max()


@pytest.mark.long
def test_a_linear_generator_gives_a_gaussian_on_a_plane():
    """z ~ N(R w/T, I), so that x ~ N(100 + R'R w/T, R'R)."""
    draws = ppl_cnn.draw(density_of(flat), chains=4, draws=800, warmup=60, **QUIET)
    images = draws["posterior/image"].values.reshape(4, 800, 12)
    covariance = ROOT.T @ ROOT
    mean = 100 + covariance @ SLOPE.ravel()
    # The largest of 24 standard normals exceeds 4.2 with probability 6e-4.
    assert far(images, mean) < 4.2
    assert far((images - mean) ** 2, np.diag(covariance)) < 4.2
    products = (images - mean) * np.roll(images - mean, 1, axis=-1)
    assert far(products, [covariance[i, i - 1] for i in range(12)]) < 4.2
    assert "stein" not in draws.children
    assert np.linalg.matrix_rank(images.reshape(-1, 12) - 100, tol=1e-2) == 2


def by_quadrature(density, quantity):
    """E_p of a quantity of images, and log Z, by a sum over a fine grid of z."""
    axis = np.linspace(-6.0, 6.0, 401, dtype=np.float32)
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    found = jax.jit(jax.vmap(lambda z: (density.log_density(z), quantity(density.push(z)))))(z)
    logs, values = (np.asarray(each, np.float64) for each in found)
    weights = np.exp(logs - logs.max())
    log_z = np.log(weights.sum() * float(axis[1] - axis[0]) ** 2 / (2 * np.pi)) + logs.max()
    return np.average(values, axis=0, weights=weights), log_z


def seen(image):
    """Numbers that tell densities apart: the score, some pixels and their squares."""
    few = image.ravel()[:4] / 100
    return jnp.concatenate([curved(image)[None], few, few**2])


@pytest.mark.parametrize(
    "kernel",
    ["split", *(pytest.param(kernel, marks=pytest.mark.long) for kernel in ("tempered:3", "hmc"))],
)
def test_kernels_agree_with_quadrature_through_a_nonlinear_generator(kernel):
    density = density_of(bent, curved, temperature=2.0)
    truth, _ = by_quadrature(density, seen)
    draws = ppl_cnn.draw(density, kernel=kernel, chains=4, draws=1000, warmup=60, **QUIET)
    found = jax.jit(jax.vmap(jax.vmap(seen)))(draws["posterior/image"].values)
    # The largest of 9 standard normals exceeds 4.2 with probability 3e-4.
    assert far(found, truth) < 4.2
    assert "stein" not in draws.children
    # And the tilt is seen: under q, the mean score is elsewhere.
    q = density.reference.distribution(SHAPE, density.unit.preprocessing)
    sampled = jax.jit(lambda key: jax.vmap(curved)(q.sample(key, (4000,))))
    untilted = np.asarray(sampled(jax.random.key(0)))
    assert abs(untilted.mean() - truth[0]) > 0.3 * untilted.std()


@pytest.mark.long
def test_importance_weights_over_the_generators_images_agree():
    """E_p[h] = E_q[h exp(f/T)]/E_q[exp(f/T)], and the quadrature's log Z is that of the weights."""
    density = density_of(bent, curved, temperature=2.0)
    truth, log_z = by_quadrature(density, seen)
    z = jax.random.normal(jax.random.key(0), (40_000, 2))
    logs = np.asarray(jax.vmap(density.tilt)(z), np.float64)
    weights = np.exp(logs)
    values = np.asarray(jax.vmap(lambda z: seen(density.push(z)))(z), np.float64)
    mean = np.average(values, axis=0, weights=weights)
    share = weights / weights.sum()
    error = np.sqrt((share[:, None] ** 2 * (values - mean) ** 2).sum(axis=0))
    assert (np.abs(mean - truth) < 4.2 * error).all()
    log_error = weights.std() / weights.mean() / len(weights) ** 0.5
    assert abs(np.log(weights.mean()) - log_z) < 4 * log_error
    draws = ppl_cnn.draw(density, chains=4, draws=1000, warmup=100, **QUIET)
    found, own_error = means(jax.vmap(jax.vmap(seen))(jnp.asarray(draws["posterior/image"].values)))
    assert (np.abs(found - mean) < 4.2 * np.hypot(own_error, error)).all()


def test_resampled_draws_agree_with_quadrature_through_a_nonlinear_generator():
    """A function's generator is a traced program, with constants of its own."""
    density = density_of(bent, curved, temperature=2.0)
    truth, log_z = by_quadrature(density, seen)
    draws = ppl_cnn.draw(density, kernel="resample:20000", chains=4, draws=1000, **QUIET)
    weights = Weights(draws["weights/tilt"].values)
    assert abs(weights.log_z.value - log_z) < 4 * weights.log_z.error
    images = draws["posterior/image"].values.reshape(-1, *SHAPE)
    found = np.asarray(jax.jit(jax.vmap(seen))(images))
    error = found.std(axis=0) / weights.worth(len(found)) ** 0.5
    assert (np.abs(found.mean(axis=0) - truth) < 4.2 * error).all()


@pytest.mark.long
def test_log_z_through_a_generator_is_the_quadratures():
    density = density_of(bent, curved, temperature=2.0)
    _, log_z = by_quadrature(density, seen)
    few = {"rungs": 4, "chains": 4, "draws": 300, "warmup": 150, "particles": 64}
    (found,) = ppl_cnn.evidence([density], temperatures=40, **few, **QUIET).values()
    for estimate in (found.reweighted, found.annealed.log_z):
        assert abs(estimate.value - log_z) < 4.5 * estimate.error
        assert estimate.error < 0.3


def test_simulation_based_calibration_through_a_nonlinear_generator():
    """z* ~ N(0, I), y ~ N(G(z*), s^2 I): among draws of z given y, z* has a uniform rank."""
    noise, count, draws = 150.0, 60, 15
    keys = jax.random.split(jax.random.key(3), count)

    def simulated(key):
        key_z, key_y = jax.random.split(key)
        z = jax.random.normal(key_z, (2,))
        return z, bent(z) + noise * jax.random.normal(key_y, SHAPE)

    truths, data = jax.vmap(simulated)(keys)
    density = density_of(bent)  # only for its images: each datum has a tilt of its own
    kernel = ppl_cnn.Split(
        lambda z, y: -jnp.sum((density.push(z) - y) ** 2) / (2 * noise**2), step_size=0.2, angle=1.5
    )

    def ranks(key, truth, y):
        """Ranks of |z| and of z_0 among thinned draws of a chain."""
        key_start, key_chain = jax.random.split(key)
        start = jax.random.normal(key_start, (2,))
        state = kernel.init(key_chain, 0, start, (y,), {})

        def move(state, _):
            state = kernel.sample(state, (y,), {})
            return state, state.z

        z = jax.lax.scan(move, state, length=100 + 20 * draws)[1][100::20]
        numbers = jnp.stack([jnp.sum(z * z, axis=-1), z[:, 0]])
        own = jnp.stack([jnp.sum(truth * truth), truth[0]])
        return jnp.sum(numbers < own[:, None], axis=-1)

    found = np.asarray(jax.jit(jax.vmap(ranks))(keys, truths, data))
    for each in found.T:
        counts = np.bincount(each // 4, minlength=4)  # ranks 0 to 15 in four bins
        assert stats.chisquare(counts).pvalue > 1e-3


@pytest.fixture
def there(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.chdir(EXAMPLE)


def unit_densities(text="conv1:3-4"):
    from own_generator import waves

    units = ppl_cnn.load("alexnet-fashion").units(text)
    return [ppl_cnn.TiltedDensity(unit, ppl_cnn.GeneratorReference.of(waves)) for unit in units]


def test_a_run_that_is_stopped_goes_on_to_the_same_bits(there, tmp_path):
    sampling = Sampling(kernel=ppl_cnn.Langevin(), chains=2, warmup=5)
    for draws in (2, 6):
        sample_to(unit_densities(), sampling, tmp_path / "stopped", draws=draws, progress=False)
    sample_to(unit_densities(), sampling, tmp_path / "whole", draws=6, progress=False)
    for unit in ("conv1-3-at-14,14", "conv1-4-at-14,14"):
        trees = [open_draws(tmp_path / run / unit / "draws.zarr") for run in ("stopped", "whole")]
        for name in ("posterior", "sample_stats", "start"):
            xr.testing.assert_identical(*(tree[name].to_dataset() for tree in trees))


def test_units_share_the_generators_weights_also_if_it_was_opened_twice(there):
    from ppl_cnn.inference.sampling.program import Program

    densities = [unit_densities()[0], unit_densities()[1]]
    assert densities[0].reference == densities[1].reference
    shapes = [leaf.shape for leaf in jax.tree.leaves(densities[0].params.reference)]
    program = Program(densities, Sampling(chains=2))
    placed = program.placement.params.reference
    assert [leaf.shape for leaf in jax.tree.leaves(placed)] == shapes


@pytest.mark.long
def test_two_devices_give_the_draws_of_one(tmp_path):
    (tmp_path / "script.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(EXAMPLE)!r})\n"
        "import os\n"
        "os.environ['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={sys.argv[1]}'\n"
        "from pathlib import Path\n"
        "import jax, ppl_cnn\n"
        "from own_generator import ready\n"
        "from ppl_cnn.inference.sampling.driver import sample_to\n"
        "from ppl_cnn.inference.sampling.settings import Sampling\n"
        "assert jax.device_count() == int(sys.argv[1])\n"
        "unit = ppl_cnn.load('alexnet-fashion').unit('conv1:5')\n"
        "density = ppl_cnn.TiltedDensity(unit, ppl_cnn.GeneratorReference.of(ready), 0.1)\n"
        "sampling = Sampling(chains=4, warmup=1)\n"
        "sample_to([density], sampling, Path(sys.argv[1]), draws=5, progress=False)\n"
    )
    for devices in ("1", "2"):
        subprocess.run([sys.executable, "script.py", devices], cwd=tmp_path, check=True)
    one, two = (open_draws(tmp_path / name / "draws.zarr") for name in ("1", "2"))
    np.testing.assert_allclose(one["posterior/image"], two["posterior/image"], atol=1e-2)


def test_chains_start_at_the_mode_of_z_given_an_image():
    """G linear: z = (s^2 I + R R')^-1 R (x - 100)."""
    density = density_of(flat)
    random = np.random.default_rng(5)
    images = (100 + 30 * random.standard_normal((2, *SHAPE))).astype(np.float32)
    started = as_start(images).latents([density], Sampling(chains=3))
    precision = DEVIATION**2 * np.eye(2) + ROOT @ ROOT.T
    expected = np.linalg.solve(precision, ROOT @ (images - 100).reshape(2, 12).T).T
    np.testing.assert_allclose(started.latents, expected[[0, 1, 0]], atol=2e-3)
    assert started.gradients == [2 * STEPS * POINTS]  # two of the three chains share an image


@pytest.mark.parametrize("start", ["zero", "rto:20", "two-sided:anneal:4"])
def test_other_starts_work_as_they_do(start):
    density = density_of(bent, curved)
    started = as_start(start).latents([density], Sampling(chains=2))
    assert started.latents.shape == (2, 2)
    assert np.isfinite(density.push(started.latents)).all()


@pytest.mark.long
def test_another_runs_draws_of_the_generator_are_found_again(tmp_path):
    density = density_of(bent, curved)
    sample_to([density], Sampling(chains=2, warmup=20), tmp_path, draws=3, progress=False)
    last = open_draws(tmp_path / "draws.zarr")["posterior/image"].values[:, -1]
    z = as_start(f"run:{tmp_path}").latents([density], Sampling(chains=2)).latents
    assert np.sqrt(np.mean((np.asarray(density.push(z)) - last) ** 2)) < 5  # grey levels of 80


def test_images_of_another_shape_are_refused(refused):
    with refused("(2, 2, 1)", kind=MismatchError):
        as_start(np.ones((1, 2, 2, 1), np.float32)).latents([density_of(flat)], Sampling(chains=2))


@pytest.mark.long
def test_a_command_samples_two_units_under_ones_own_generator(command, there, tmp_path):
    out = tmp_path / "run"
    line = ("--unit", "conv2:3-4", "--reference", "own_generator:generator", "--chains", "2")
    line += ("--warmup", "5", "--out", str(out))
    done = command("ppl_cnn.sample", *line, "--draws", "20")
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["reference"].startswith("generator:own_generator:generator@")
    assert (out / "report.html").exists()
    again = command("ppl_cnn.sample", *line, "--draws", "25")
    assert again.returncode == 0, again.stderr
    assert "resumes" in again.stderr
    tree = open_draws(out / "conv2-3-at-7,7" / "draws.zarr")
    assert tree["posterior"].sizes["draw"] == 25
    assert "stein" not in tree.children
