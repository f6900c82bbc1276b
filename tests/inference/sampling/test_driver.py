import io
import json
import math
import subprocess
import sys

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import ppl_cnn
from ppl_cnn.errors import ArgumentError, MismatchError, RunFolderError, UnknownNameError
from ppl_cnn.inference.kernels.registry import KERNELS, parse_kernel
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.state import restore_state, save_state

SIGMA, TEMPERATURE = 3.0, 0.5
# NumPyro's are proved quickly in one closed form, and at length in all.
NUMPYRO = [pytest.param(name, marks=pytest.mark.long) for name in ("hmc", "nuts")]
WEIGHTS = np.random.default_rng(1).normal(size=(4, 5, 1)).astype(np.float32) / 10


def linear(image):
    return jnp.sum(jnp.asarray(WEIGHTS) * image)


def linear_density():
    """p = N(sigma^2 w / T, sigma^2 I)."""
    response = ppl_cnn.ScoreFunction(linear, WEIGHTS.shape)
    return ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(SIGMA), TEMPERATURE)


def unit_density(unit, temperature=0.02):
    network = ppl_cnn.load("alexnet-fashion")
    return ppl_cnn.TiltedDensity(network.unit(unit), ppl_cnn.WhiteNoise(10.0), temperature)


def z_scores(image, truth, moment):
    """Errors of estimated means or sds in units of their Monte Carlo standard error."""
    dims = ("chain", "draw")
    estimate = image.mean(dims) if moment == "mean" else image.std(dims)
    error = arviz_stats.mcse(xr.Dataset({"x": image}), method=moment)["x"]
    return ((estimate - truth) / error).values.ravel()


# The others have proofs of their own beside their kernels.


@pytest.mark.parametrize(
    "kernel", [pytest.param(k, marks=[pytest.mark.long] * (k != "split")) for k in KERNELS]
)
def test_a_linear_response_gives_the_shifted_gaussian(kernel):
    draws = ppl_cnn.draw(
        linear_density(), kernel=kernel, chains=4, draws=1000, warmup=60, seed=0, progress=False
    )
    image = draws["posterior/image"].astype(np.float64)
    mean = SIGMA**2 * WEIGHTS / TEMPERATURE
    # The largest of 20 standard normal errors exceeds 4 with probability 0.0013.
    assert np.abs(z_scores(image, mean, "mean")).max() < 4
    assert np.abs(z_scores(image, SIGMA, "sd")).max() < 4
    # The potential is quadratic: lp and response are functions of the image.
    np.testing.assert_allclose(
        draws["posterior/response"], (WEIGHTS * image).sum(("row", "col", "channel")), atol=1e-5
    )
    d = WEIGHTS.size
    log_density = (
        draws["posterior/response"] / TEMPERATURE
        - (image**2).sum(("row", "col", "channel")) / (2 * SIGMA**2)
        - d / 2 * np.log(2 * np.pi)
    )
    np.testing.assert_allclose(draws["sample_stats/lp"], log_density, rtol=1e-5, atol=1e-4)
    # E[energy] = E[U] + d/2, and U - lp's constant is chi-square: within five standard errors.
    kinetic = (draws["sample_stats/energy"] + draws["sample_stats/lp"]).values
    assert abs(kinetic.mean() - d / 2) < 5 * np.sqrt(d / 2 / 500)
    # The gradient of a linear response is constant: the Stein mean is exact.
    np.testing.assert_allclose(
        draws["stein/image"].values, np.broadcast_to(mean, (4, 20, 4, 5, 1)), atol=1e-5
    )


@pytest.mark.parametrize(
    "kernel", ["split", pytest.param("tempered:3", marks=pytest.mark.long), *NUMPYRO]
)
@pytest.mark.long
def test_a_band_and_warps_leave_a_linear_response_its_closed_form(kernel):
    """p = N(R R^T m / T, R R^T), m the mean of the warps' W_k^T w; the store has the images."""
    response = ppl_cnn.ScoreFunction(linear, WEIGHTS.shape)
    unit = ppl_cnn.Averaged(response, 3)
    reference = ppl_cnn.Band(2, ppl_cnn.Spectral(1.2, contrast=3.0))
    density = ppl_cnn.TiltedDensity(unit, reference, 0.3)
    root = np.asarray(jax.jacfwd(density.push)(jnp.zeros((2, 2, 1))), np.float64).reshape(20, 4)
    m = np.asarray(jax.grad(unit.score, argnums=1)(unit.params, jnp.zeros(WEIGHTS.shape)))
    mean = (root @ root.T @ m.ravel() / 0.3).reshape(WEIGHTS.shape)
    deviation = np.sqrt(np.diag(root @ root.T)).reshape(WEIGHTS.shape)
    draws = ppl_cnn.draw(density, kernel=kernel, chains=4, draws=1000, seed=0, progress=False)
    image = draws["posterior/image"].astype(np.float64)
    # The largest of 20 standard normal errors exceeds 4 with probability 0.0013.
    assert np.abs(z_scores(image, mean, "mean")).max() < 4
    assert np.abs(z_scores(image, deviation, "sd")).max() < 4
    assert np.abs(mean).max() > deviation.max() / 2
    # Stein's mean is R of the mean gradient in z, which is constant.
    stein = draws["stein/image"].values
    np.testing.assert_allclose(stein, np.broadcast_to(mean, stein.shape), atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    "kernel", ["split", pytest.param("tempered", marks=pytest.mark.long), *NUMPYRO]
)
def test_a_quadratic_response_gives_the_other_gaussian(kernel):
    """f(x) = <w, x> - x'Ax/2: p = N(C w/T, C) with C = (I/sigma^2 + A/T)^-1."""
    matrix = np.asarray([[2.0, 1.0, 0.0], [1.0, 1.5, -0.4], [0.0, -0.4, 0.3]]) / 10
    slope = np.asarray([0.5, -1.0, 0.2])

    def quadratic(image):
        x = image.ravel()
        return slope.astype(np.float32) @ x - x @ matrix.astype(np.float32) @ x / 2

    density = ppl_cnn.TiltedDensity(
        ppl_cnn.ScoreFunction(quadratic, (1, 3, 1)), ppl_cnn.WhiteNoise(SIGMA), TEMPERATURE
    )
    draws = ppl_cnn.draw(density, kernel=kernel, chains=4, draws=1500, seed=0, progress=False)
    image = draws["posterior/image"].astype(np.float64)
    covariance = np.linalg.inv(np.eye(3) / SIGMA**2 + matrix / TEMPERATURE)
    mean = covariance @ slope / TEMPERATURE
    # The largest of nine standard normal errors exceeds 4 with probability 6e-4.
    assert np.abs(z_scores(image, mean.reshape(1, 3, 1), "mean")).max() < 4
    assert np.abs(z_scores(image, np.sqrt(np.diag(covariance)).reshape(1, 3, 1), "sd")).max() < 4
    centred = (image - mean.reshape(1, 3, 1)).values.reshape(4, 1500, 3)
    products = np.stack([centred[..., i] * centred[..., (i + 1) % 3] for i in range(3)], axis=-1)
    truth = [covariance[i, (i + 1) % 3] for i in range(3)]
    products = xr.DataArray(products, dims=("chain", "draw", "pair"))
    assert np.abs(z_scores(products, truth, "mean")).max() < 4


@pytest.mark.parametrize(
    ("kernel", "unit", "temperature"),
    [
        ("split(moves=trajectories)", "conv2:20", 0.05),
        pytest.param("split", "conv5:12", 0.02, marks=pytest.mark.long),
        pytest.param("split", "fc8:3", 0.1, marks=pytest.mark.long),
        pytest.param("hmc", "conv5:12", 0.02, marks=pytest.mark.long),
        pytest.param("nuts", "conv2:20", 0.05, marks=pytest.mark.long),
    ],
)
def test_steins_identity_holds_on_a_trained_network(kernel, unit, temperature):
    """E_p[x] = (s^2/T) E_p[grad f]: the draws' mean against the mean of their gradients."""
    density = unit_density(unit, temperature)
    settings = {"chains": 4, "draws": 300, "warmup": 100, "seed": 1, "progress": False}
    draws = ppl_cnn.draw(density, kernel=kernel, **settings)
    image = draws["posterior/image"].astype(np.float64)
    stein = draws["stein/image"].weighted(draws["stein/draws"]).mean(("chain", "block"))
    stein = stein / np.sqrt((stein**2).sum())
    # Along the Stein mean, where the tilt is strongest, and along random directions.
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(8, *stein.shape)) / np.sqrt(stein.size)
    directions = np.concatenate([stein.values[None], directions])
    dims = ("direction", "row", "col", "channel")
    directions = xr.DataArray(directions, dims=dims, coords=stein.coords)
    along = (image * directions).sum(("row", "col", "channel"))
    raw = draws["stein/image"].weighted(draws["stein/draws"]).mean(("chain", "block"))
    truth = (raw * directions).sum(("row", "col", "channel"))
    # The gradients' own Monte Carlo error is far below the draws' (they vary little): the
    # largest of 9 errors exceeds 4.5 standard errors with probability 6e-5.
    assert np.abs(z_scores(along, truth, "mean")).max() < 4.5
    # And there is something to see: without the tilt it would be 0 within three of these.
    assert truth[0] > 8 * float(along.std()) / np.sqrt(draws["posterior/response"].size)


@pytest.mark.long
def test_thinning_keeps_every_second_draw_and_adds_up_the_gradients():
    density = linear_density()
    every = ppl_cnn.draw(density, chains=2, draws=40, warmup=20, progress=False)
    second = ppl_cnn.draw(density, chains=2, draws=20, warmup=20, thin=2, progress=False)
    np.testing.assert_array_equal(second["posterior/image"], every["posterior/image"][:, 1::2])
    steps = every["sample_stats/n_steps"].values
    np.testing.assert_array_equal(second["sample_stats/n_steps"], steps[:, ::2] + steps[:, 1::2])
    rates = every["sample_stats/acceptance_rate"].values
    np.testing.assert_allclose(
        second["sample_stats/acceptance_rate"], (rates[:, ::2] + rates[:, 1::2]) / 2, rtol=1e-6
    )


@pytest.mark.parametrize(
    "kernel",
    [
        "split",
        *(pytest.param(kernel, marks=pytest.mark.long) for kernel in ("isir:4", "tempered:3")),
        *NUMPYRO,
    ],
)
@pytest.mark.long
def test_a_run_in_two_parts_is_the_run_in_one(kernel, tmp_path):
    density, sampling = (
        unit_density("conv2:3"),
        Sampling(kernel=parse_kernel(kernel), chains=2, warmup=60),
    )
    sample_to([density], sampling, tmp_path / "one", draws=150, progress=False)
    sample_to([density], sampling, tmp_path / "two", draws=70, progress=False)
    sample_to([density], sampling, tmp_path / "two", draws=150, progress=False)
    one, two = (open_draws(tmp_path / name / "draws.zarr").load() for name in ("one", "two"))
    for group in ("posterior", "sample_stats"):
        xr.testing.assert_identical(one[group].to_dataset(), two[group].to_dataset())
    one, two = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two"))
    assert one["gradients"] == two["gradients"]


def test_a_run_by_pools_is_resumed_to_the_same_bits_and_says_so(tmp_path):
    # So rough that trajectories go in small steps.
    unit = ppl_cnn.ScoreFunction(lambda image: 0.4 * jnp.sum(jnp.sin(3 * image)), (2, 2, 1))
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(3.0))
    sampling = Sampling(chains=2, warmup=70)
    sample_to([density], sampling, tmp_path / "one", draws=50, progress=False)
    for draws in (20, 50):  # amid a pool
        sample_to([density], sampling, tmp_path / "two", draws=draws, progress=False)
    one, two = (open_draws(tmp_path / name / "draws.zarr").load() for name in ("one", "two"))
    for group in ("posterior", "sample_stats"):
        xr.testing.assert_identical(one[group].to_dataset(), two[group].to_dataset())
    stats = one["sample_stats"]
    fresh = int(stats["fresh_per_draw"][0, 0])
    assert (stats["forward_passes"][:, 0] == (16 if fresh == 1 else 32) * fresh).all()
    assert (stats["forward_passes"][:, 1:] == fresh).all()
    moves = ppl_cnn.diagnose(tmp_path / "one").efficiency.moves
    assert moves.turn is None
    assert moves.fresh == fresh
    assert moves.worth_of_fresh > max(moves.worth_of_turns, moves.worth_of_trajectories) > 0


def test_a_run_by_turns_is_resumed_to_the_same_bits_and_says_that_it_turned(tmp_path, monkeypatch):
    monkeypatch.setattr("ppl_cnn.inference.kernels.choice.LEAST_EFFICIENCY", 2.0)
    density, sampling = unit_density("conv1:3", 5.0), Sampling(chains=2, warmup=70)
    sample_to([density], sampling, tmp_path / "one", draws=50, progress=False)
    for draws in (20, 50):
        sample_to([density], sampling, tmp_path / "two", draws=draws, progress=False)
    one, two = (open_draws(tmp_path / name / "draws.zarr").load() for name in ("one", "two"))
    for group in ("posterior", "sample_stats"):
        xr.testing.assert_identical(one[group].to_dataset(), two[group].to_dataset())
    stats = one["sample_stats"]
    turns = int(stats["forward_passes"][0, 0])
    assert (stats["forward_passes"] == turns).all()
    gradients = json.loads((tmp_path / "one" / "run.json").read_text())["gradients"]["sampling"]
    assert gradients == int(stats["n_steps"].sum()) <= 2 * math.ceil(50 * turns / 16)
    moves = ppl_cnn.diagnose(tmp_path / "one").efficiency.moves
    assert moves.turn == pytest.approx(float(stats["turn"][0, 0]))
    assert moves.turn > 0.1
    assert moves.passes == turns
    assert moves.worth_of_turns > moves.worth_of_trajectories > 0


def test_a_run_killed_anywhere_is_continued_to_the_same_bits(tmp_path, monkeypatch):
    """Stops after each of the writes in turn: to the store, of the state, of the record."""
    density, sampling = linear_density(), Sampling(chains=2, warmup=60)
    sample_to([density], sampling, tmp_path / "whole", draws=150, progress=False)
    whole = open_draws(tmp_path / "whole" / "draws.zarr").load()
    group = sys.modules["ppl_cnn.inference.sampling.group"]
    monkeypatch.setattr(group, "SAVE_SECONDS", 0.0)
    writes = [(group.DrawStore, "write"), (group, "save_state"), (group.RunFolder, "update")]
    for stop in (2, 7, 8, 9):
        out = tmp_path / f"killed{stop}"
        calls = 0

        def dying(original, stop=stop):
            def call(*args, **kwargs):
                nonlocal calls
                original(*args, **kwargs)
                calls += 1
                if calls == stop:
                    raise KeyboardInterrupt

            return call

        with monkeypatch.context() as patch:
            for owner, name in writes:
                patch.setattr(owner, name, dying(getattr(owner, name)))
            with pytest.raises(KeyboardInterrupt):
                sample_to([density], sampling, out, draws=150, progress=False)
        sample_to([density], sampling, out, draws=150, progress=False)
        again = open_draws(out / "draws.zarr").load()
        for group in ("posterior", "sample_stats", "stein"):
            xr.testing.assert_identical(again[group].to_dataset(), whole[group].to_dataset())


@pytest.mark.parametrize("seconds", [1e-9, pytest.param(1e9, marks=pytest.mark.long)])
def test_how_a_run_is_cut_into_calls_changes_no_bit(seconds, tmp_path, monkeypatch):
    """And a state that was saved within a block goes on to the same bits, Stein means included."""
    density, sampling = linear_density(), Sampling(chains=2, warmup=20, thin=2)
    program = sys.modules["ppl_cnn.inference.sampling.program"]
    monkeypatch.setattr(program, "LONGEST_BLOCK", 20)
    sample_to([density], sampling, tmp_path / "usual", draws=60, progress=False)
    monkeypatch.setattr(program, "CALL_SECONDS", seconds)
    sample_to([density], sampling, tmp_path / "cut", draws=60, progress=False)
    usual, cut = (open_draws(tmp_path / name / "draws.zarr").load() for name in ("usual", "cut"))
    for group in ("posterior", "sample_stats", "stein"):
        xr.testing.assert_identical(usual[group].to_dataset(), cut[group].to_dataset())


def test_a_state_within_a_block_is_resumed_and_its_draws_are_written(tmp_path):
    program = Program([linear_density()], Sampling(chains=2, warmup=4))
    position, path = program.begin(), tmp_path / "state.npz"
    while position.draws < 7:
        call = program.call(position, 50)
        position = program.ended(call, position)
    save_state(position.copied(), path)
    found = restore_state(path, program.chains, program.room, program.place)
    assert (found.draws, found.written, found.filled) == (position.draws, 0, position.draws)
    calls = [program.call(each, 50) for each in (position, found)]
    for one, other in zip(*(jax.tree.leaves(call.kept) for call in calls), strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_stay_small_whatever_the_image():
    def block(rows, chains):
        response = ppl_cnn.ScoreFunction(jnp.sum, (rows, rows, 3))
        density = ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(1.0))
        return Program([density], Sampling(chains=chains)).block

    assert block(8, 2) == 50
    assert block(227, 8) == 16 * 2**20 // (8 * 4 * 227 * 227 * 3) == 3
    assert block(227, 100) == 1


ON_TWO_DEVICES = """
import sys, jax
jax.config.update("jax_num_cpu_devices", 2)
from pathlib import Path
import ppl_cnn
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.settings import Sampling
unit = ppl_cnn.load("alexnet-fashion").unit("conv1:5")
density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0), 0.1)
sampling = Sampling(kernel=ppl_cnn.Langevin(), chains=4, warmup=1)
assert len(Program([density], sampling).placement.mesh.devices) == 2
sample_to([density], sampling, Path(sys.argv[1]), draws=20, progress=False)
"""


def test_two_devices_share_the_chains_and_give_the_same_draws(tmp_path):
    """The first draws agree to float accuracy; later ones may part, as chaos amplifies that."""
    subprocess.run([sys.executable, "-c", ON_TWO_DEVICES, str(tmp_path / "two")], check=True)
    density = unit_density("conv1:5", 0.1)
    sampling = Sampling(kernel=ppl_cnn.Langevin(), chains=4, warmup=1)
    sample_to([density], sampling, tmp_path / "one", draws=20, progress=False)
    one, two = (open_draws(tmp_path / name / "draws.zarr") for name in ("one", "two"))
    images = [tree["posterior/image"].values[:, :5] for tree in (one, two)]
    np.testing.assert_allclose(images[0], images[1], atol=1e-2)
    np.testing.assert_array_equal(one["posterior/chain"], two["posterior/chain"])


def test_a_run_with_other_settings_or_weights_is_refused(tmp_path, refused):
    density = linear_density()
    sample_to([density], Sampling(chains=2, warmup=5), tmp_path, draws=5, progress=False)
    with refused("chains 2, not 3", kind=RunFolderError, path=tmp_path):
        sample_to([density], Sampling(chains=3, warmup=5), tmp_path, draws=5, progress=False)
    with refused("`out`", kind=RunFolderError, path=tmp_path):
        sample_to([unit_density("conv1:0")], Sampling(chains=2, warmup=5), tmp_path, draws=5)


@pytest.mark.long
def test_a_run_is_recorded_with_its_views_and_other_views_are_another_run(tmp_path, refused):
    units = ppl_cnn.load("alexnet-fashion").units("conv2:3-4")
    sampling = Sampling(chains=2, warmup=5)

    def densities(warps):
        return [
            ppl_cnn.TiltedDensity(ppl_cnn.Averaged(unit, warps, smooth=2.0), ppl_cnn.WhiteNoise(9))
            for unit in units
        ]

    for draws in (3, 6):
        sample_to(densities(2), sampling, tmp_path, draws=draws, progress=False)
    for folder in (tmp_path, tmp_path / "conv2-3-at-7,7"):
        config = json.loads((folder / "run.json").read_text())["config"]
        assert (config["warps"], config["smooth"], config["views_seed"]) == (2, 2.0, 0)
    with refused("warps 2, not 3", kind=RunFolderError, path=tmp_path):
        sample_to(densities(3), sampling, tmp_path, draws=3, progress=False)


@pytest.mark.long
def test_a_run_from_before_the_views_is_continued(tmp_path):
    """What isn't asked for leaves no trace in the record."""
    density = unit_density("conv2:3")
    sample_to([density], Sampling(chains=2, warmup=5), tmp_path, draws=3, progress=False)
    config = json.loads((tmp_path / "run.json").read_text())["config"]
    assert not {"warps", "smooth", "views_seed", "size"} & config.keys()
    assert config["target"] == "logit"


def test_a_damaged_state_is_refused_and_the_draws_stay(tmp_path, refused):
    density, sampling = linear_density(), Sampling(chains=2, warmup=5)
    sample_to([density], sampling, tmp_path, draws=5, progress=False)
    state = (tmp_path / "state.npz").read_bytes()
    for damaged in (state[: len(state) // 2], b"", b"PK" + bytes(100)):
        (tmp_path / "state.npz").write_bytes(damaged)
        with refused("is damaged", kind=RunFolderError, path=tmp_path / "state.npz"):
            sample_to([density], sampling, tmp_path, draws=10, progress=False)
    with np.load(io.BytesIO(state)) as file:
        arrays = {name: file[name] for name in file.files if name != "arr_0"}
    np.savez(tmp_path / "state.npz", **arrays)
    with refused("another version", kind=RunFolderError, path=tmp_path / "state.npz"):
        sample_to([density], sampling, tmp_path, draws=10, progress=False)
    assert open_draws(tmp_path / "draws.zarr")["posterior"].sizes["draw"] == 5


def test_a_response_that_is_not_finite_is_refused(refused):
    response = ppl_cnn.ScoreFunction(lambda image: jnp.log(-1 - jnp.sum(image**2)), (2, 2, 1))
    density = ppl_cnn.TiltedDensity(response, ppl_cnn.WhiteNoise(1.0))
    with refused("not finite", "response", kind=MismatchError):
        ppl_cnn.draw(density, draws=5, progress=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("chains", 0), ("draws", 0), ("warmup", 0), ("thin", 0), ("seed", -1), ("seed", 2**63)),
        *(("target_accept", 0.0), ("target_accept", 1.0), ("target_accept", float("nan"))),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_a_sentence(name, value, refused):
    with refused(f"`{name}`", value, kind=ArgumentError, argument=name):
        ppl_cnn.draw(linear_density(), progress=False, **{name: value})


def test_an_unknown_kernel_is_refused(refused):
    with refused("gibbs", *KERNELS, kind=UnknownNameError, name="gibbs"):
        ppl_cnn.draw(linear_density(), kernel="gibbs", progress=False)


def test_a_kernel_object_is_its_text(tmp_path):
    short = {"chains": 2, "draws": 5, "warmup": 5, "progress": False}
    text = ppl_cnn.draw(linear_density(), kernel="split", out=tmp_path, **short)
    # The same run: there is nothing left to sample, and nothing to refuse.
    again = ppl_cnn.draw(linear_density(), kernel=Split(), out=tmp_path, **short)
    xr.testing.assert_identical(text["posterior"].to_dataset(), again["posterior"].to_dataset())
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["config"]["kernel"] == "split"


def test_a_kernels_settings_count_and_are_recorded(tmp_path, refused):
    short = {"chains": 2, "draws": 5, "warmup": 5, "progress": False, "out": tmp_path}
    ppl_cnn.draw(linear_density(), kernel=Split(target_accept_prob=0.9, angle=1.0), **short)
    config = json.loads((tmp_path / "run.json").read_text())["config"]
    assert (config["kernel"], config["target_accept"]) == ("split(angle=1.0)", 0.9)
    with refused("split(angle=1.0)", "not split", kind=RunFolderError):
        ppl_cnn.draw(linear_density(), target_accept=0.9, **short)


@pytest.mark.long
def test_a_run_that_recorded_the_default_number_of_rungs_is_resumed(tmp_path):
    """Earlier versions recorded what was typed: tempered:16 or tempered."""
    density, settings = linear_density(), {"chains": 2, "warmup": 5}
    sampling = Sampling(kernel=parse_kernel("tempered"), **settings)
    sample_to([density], sampling, tmp_path, draws=3, progress=False)
    record = json.loads((tmp_path / "run.json").read_text())
    record["config"]["kernel"] = "tempered:16"
    (tmp_path / "run.json").write_text(json.dumps(record))
    root = tmp_path / "draws.zarr" / "zarr.json"
    root.write_text(root.read_text().replace('"kernel": "tempered"', '"kernel": "tempered:16"'))
    sample_to([density], sampling, tmp_path, draws=5, progress=False)
    assert open_draws(tmp_path / "draws.zarr")["posterior"].sizes["draw"] == 5


@pytest.mark.long  # `test_starts.py` has the same of a trained unit
def test_images_in_memory_are_where_chains_start():
    images = np.random.default_rng(0).normal(size=(2, *WEIGHTS.shape)).astype(np.float32)
    tree = ppl_cnn.draw(linear_density(), chains=4, draws=2, warmup=2, start=images, progress=False)
    np.testing.assert_allclose(tree["start/image"], images[[0, 1, 0, 1]], atol=1e-5)


@pytest.mark.long
def test_the_seed_decides_the_draws():
    runs = [
        ppl_cnn.draw(linear_density(), chains=2, draws=3, warmup=3, seed=seed, progress=False)
        for seed in (0, 0, 1)
    ]
    images = [run["posterior/image"].values for run in runs]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert jax.numpy.isfinite(images[2]).all()
