import arviz
import numpy as np
import pytest
import xarray as xr

from ppl_cnn.inference.diagnostics.scan import loaded, read, scan
from ppl_cnn.inference.diagnostics.stein import stein_check, stein_means
from ppl_cnn.inference.diagnostics.summary import ESS_DRAWS, RHAT_POOR, by_label, scalars, summary
from ppl_cnn.inference.diagnostics.verdict import ESS_GOOD, verdict
from ppl_cnn.inference.runs.store import DrawStore


def write_run(folder, image, block=7, stein=None):
    """A run's folder with these draws, as the chain driver leaves it.

    Args:
        folder: made here.
        image: (chain, draw, row, col, channel).
        block: draws per block.
        stein: (chain, block, row, col, channel); zero if not given.
    """
    chains, draws, *shape = image.shape
    stats = ("lp", "energy", "acceptance_rate", "diverging")
    blocks = -(-draws // block)
    stein = np.zeros((chains, blocks, *shape)) if stein is None else stein
    folder.mkdir(exist_ok=True)
    store = DrawStore(folder / "draws.zarr", block)
    sizes = {dim: range(n) for dim, n in zip(("row", "col", "channel"), shape, strict=True)}
    store.create({"chain": range(chains), **sizes}, dict.fromkeys(stats, np.float32), {})
    for number in range(blocks):
        here = slice(number * block, min(draws, (number + 1) * block))
        zeros = np.zeros((chains, here.stop - here.start), np.float32)
        values = dict.fromkeys(
            (*(f"sample_stats/{name}" for name in stats), "posterior/response"), zeros
        )
        values["posterior/image"] = image[:, here].astype(np.float32)
        values["stein/image"] = stein[:, number : number + 1].astype(np.float32)
        values["stein/draws"] = np.asarray([zeros.shape[1]])
        store.write(here.start, number, values)
    return folder


def noise(chains, draws, shape=(5, 4, 1), seed=0):
    return 10 * np.random.default_rng(seed).normal(size=(chains, draws, *shape))


def autoregressive(rng, phi, chains, draws):
    """Stationary, unit variance, autocorrelation phi^lag: ESS of the mean is N(1-phi)/(1+phi)."""
    values = rng.normal(size=(chains, draws))
    for step in range(1, draws):
        values[:, step] = phi * values[:, step - 1] + np.sqrt(1 - phi**2) * values[:, step]
    return values


def quantities(seed=0, chains=4, draws=500, phi=0.0, **given):
    """What `scalars` returns, of chains with a known autocorrelation."""
    rng = np.random.default_rng(seed)
    dims = ("chain", "draw")
    posterior = {
        name: (dims, autoregressive(rng, phi, chains, draws))
        for name in ("response", "lp", "energy")
    }
    for name, dim in (("projections", "projection"), ("pixels", "pixel")):
        parts = [autoregressive(rng, phi, chains, draws) for _ in range(2)]
        posterior[name] = ((*dims, dim), np.stack(parts, axis=-1))
    stats = {
        "diverging": np.zeros((chains, draws), bool),
        "acceptance_rate": np.ones((chains, draws)),
    }
    for name, value in given.items():
        if name in stats:
            stats[name] = value
        else:
            posterior[name] = (posterior[name][0], value)
    coords = {"chain": range(chains), "draw": range(draws)}
    labels = {"projection": [0, 1], "pixel": ["0,0", "0,1"]}
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(posterior, {**coords, **labels}),
            "sample_stats": xr.Dataset({n: (dims, v) for n, v in stats.items()}, coords),
        }
    )


def judge(tree, config=None):
    return verdict(tree, summary(tree), config)


# One pass over the images


@pytest.mark.parametrize("block", [1, 7, 100])
def test_scan_finds_the_same_whatever_the_blocks(tmp_path, block):
    image = noise(3, 20).astype(np.float32)
    tree = read(write_run(tmp_path, image, block))
    images = scan(tree, shown=4)
    np.testing.assert_allclose(images.mean, image.mean(axis=1, dtype=np.float64), atol=1e-12)
    assert images.shown_draws.tolist() == [0, 6, 13, 19]
    np.testing.assert_array_equal(images.shown, image[:, [0, 6, 13, 19]])
    for number, draw in enumerate(images.shown_draws):
        expected = image[:, : draw + 1].mean(axis=1)
        np.testing.assert_allclose(images.running[:, number], expected, rtol=1e-4, atol=1e-5)
    row, col, channel = images.places.T
    np.testing.assert_array_equal(images.pixels, image[:, :, row, col, channel])


def test_projections_are_linear_and_in_pixel_units(tmp_path):
    image = noise(4, 100, (12, 12, 3))
    once, twice = (
        scan(read(write_run(tmp_path / name, images, 50))).projections
        for name, images in (("once", image), ("twice", 2 * image))
    )
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)
    # White noise of sigma 10 has sd 10 |v| along v; |v| is 1 up to 1/sqrt(2 * 432).
    assert once.std(axis=(0, 1)) == pytest.approx(10, rel=0.2)
    correlations = np.corrcoef(once.reshape(-1, once.shape[-1]).T) - np.eye(once.shape[-1])
    assert np.abs(correlations).max() < 0.3


def test_images_are_never_read_all_at_once(tmp_path, monkeypatch):
    tree = read(write_run(tmp_path, noise(2, 40), block=5))
    sizes, load = [], loaded

    def watched(array):
        if array.name == "image":
            sizes.append(array.sizes["draw"])
        return load(array)

    monkeypatch.setattr("ppl_cnn.inference.diagnostics.scan.loaded", watched)
    scan(tree)
    assert sizes == [5] * 8


def test_pixels_are_labelled_by_their_place(tmp_path):
    posterior = scalars(read(write_run(tmp_path / "grey", noise(2, 8, (9, 6, 1)))))["posterior"]
    labels = [f"{row},{col}" for row in (1, 4, 7) for col in (1, 3, 5)]
    assert posterior["pixel"].values.tolist() == labels
    posterior = scalars(read(write_run(tmp_path / "colour", noise(2, 8, (1, 1, 3)))))["posterior"]
    assert posterior["pixel"].values.tolist() == ["0,0,1"]


def test_stein_means_weigh_blocks_by_their_draws(tmp_path):
    stein = np.random.default_rng(2).normal(size=(2, 3, 5, 4, 1))
    tree = read(write_run(tmp_path, noise(2, 17), block=7, stein=stein))
    found = stein_means(tree, np.asarray([0, 6, 14, 16]))
    blocks = stein.astype(np.float32)
    np.testing.assert_allclose(found.running[:, 0], blocks[:, 0], rtol=1e-5)
    expected = np.average(blocks, axis=1, weights=[7, 7, 3])
    np.testing.assert_allclose(found.running[:, 1], expected, rtol=1e-4, atol=1e-6)
    assert (found.draws.tolist(), found.step.tolist()) == ([7, 17], [0, 0, 1, 1])


def test_a_store_may_lack_stein_means(tmp_path, refused):
    tree = read(write_run(tmp_path, noise(2, 17)))
    with refused("lacks Stein mean images"):
        stein_means(tree, np.asarray([17]))
    del tree["stein"]
    assert stein_means(tree, np.asarray([3])) is None


def test_stein_check_tells_chance_from_a_biased_sampler():
    rng = np.random.default_rng(0)
    stein = rng.normal(size=(8, 30, 30, 1))
    mean = stein + rng.normal(size=stein.shape)
    check = stein_check(mean, stein)
    assert check.chance == pytest.approx(1 / np.sqrt(8), rel=0.05)
    assert check.difference == pytest.approx(check.chance, rel=0.1)
    biased = stein_check(mean + 3, stein)
    assert biased.difference == pytest.approx(np.hypot(3, check.difference), rel=0.05)
    assert biased.chance == pytest.approx(check.chance)
    assert stein_check(mean[:1], stein[:1]) is None
    assert stein_check(mean + np.nan, stein) is None


# Stores that can't be used


def test_without_draws_there_is_nothing_to_diagnose(tmp_path, refused):
    tree = read(write_run(tmp_path, noise(2, 3)))
    with refused("holds 3 draws of each chain so far; at least 4"):
        scalars(tree)


def test_an_empty_store_is_read_but_not_diagnosed(tmp_path, refused):
    tree = read(write_run(tmp_path, noise(2, 0)))
    with refused("holds 0 draws"):
        scan(tree)


def test_a_folder_without_a_store(tmp_path, refused):
    with refused("holds no draws"):
        read(tmp_path)


def test_a_foreign_store(tmp_path, refused):
    groups = {
        name: xr.Dataset({"x": ("y", [1.0])}) for name in ("posterior", "sample_stats", "stein")
    }
    foreign = xr.DataTree.from_dict(groups)
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        foreign.to_zarr(tmp_path / "draws.zarr", consolidated=True)
    with refused("lacks posterior/image"):
        read(tmp_path)


def test_a_truncated_chunk(tmp_path, refused):
    write_run(tmp_path, noise(2, 20))
    chunk = next(p for p in (tmp_path / "draws.zarr/posterior/image/c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:40])
    with refused("can't be read, the store is damaged"):
        scan(read(tmp_path))


# Known answers


def test_independent_draws_are_good():
    found = judge(quantities(draws=1000))
    assert found.state == "good"
    assert 0.99 < found.rhat.value < 1.01
    # The smallest of seven estimates of 4,000.
    assert found.ess_bulk.value == pytest.approx(4000, rel=0.15)
    assert found.ess_tail.value == pytest.approx(4000, rel=0.25)
    # E(e' - e)^2 = 2 Var e.
    assert found.bfmi.value == pytest.approx(2, rel=0.15)
    assert (found.divergences, found.nonfinite, found.draws) == (0, 0, 4000)


@pytest.mark.parametrize("phi", [0.5, 0.9])
def test_the_ess_of_an_autoregression(phi):
    tree = quantities(chains=4, draws=5000, phi=phi)
    table = summary(tree)
    expected = 20_000 * (1 - phi) / (1 + phi)
    # One estimate has an error of some 10 %, the mean of seven less.
    assert table["ess_bulk"].mean() == pytest.approx(expected, rel=0.1)
    found = judge(tree)
    assert found.ess_bulk.value == table["ess_bulk"].min()
    assert found.ess_bulk.of == table["ess_bulk"].idxmin()
    # E-BFMI of an autoregression is 2(1 - phi).
    assert found.bfmi.value == pytest.approx(2 * (1 - phi), rel=0.15)


def test_every_label_of_the_summary_has_its_values():
    tree = quantities()
    table, every = summary(tree), by_label(tree)
    assert list(every) == table.index.tolist()
    for label, values in every.items():
        assert float(values.mean()) == pytest.approx(table.loc[label, "mean"])


def test_shifted_chains_disagree():
    tree = quantities()
    tree["posterior/response"][0] += 4
    found = judge(tree, {"warmup": 100})
    assert found.state == "bad"
    assert found.rhat.of == "response"
    assert found.rhat.value > 1.3
    assert "disagree" in found.sentence
    assert "--warmup 200" in found.sentence


def test_few_draws_of_sound_chains_are_not_called_a_disagreement():
    found = judge(quantities(chains=8, draws=12), {"thin": 1})
    assert found.rhat.value > RHAT_POOR
    assert found.state == "short"
    assert "too few draws" in found.sentence
    assert "--draws" in found.sentence


@pytest.mark.parametrize("phi", [0.0, 0.9])
@pytest.mark.parametrize("draws", [ESS_DRAWS - 1, ESS_DRAWS])
def test_arviz_cannot_tell_effective_draws_of_short_chains(draws, phi):
    values = autoregressive(np.random.default_rng(0), phi, 4, draws)
    halves = 4 * 2 * (draws // 2)
    at_its_bound = float(arviz.ess(values)) == pytest.approx(halves * np.log10(halves))
    assert at_its_bound == (draws < ESS_DRAWS)


def test_effective_draws_of_short_chains_are_not_told():
    # 32 chains of 9 draws: ArviZ has 616 of 288, whatever they do.
    tree = quantities(chains=32, draws=9)
    table, found = summary(tree), judge(tree, {"thin": 1})
    assert table[["ess_bulk", "ess_tail", "mcse_mean", "mcse_sd"]].isna().all(axis=None)
    assert table[["mean", "sd", "r_hat"]].notna().all(axis=None)
    assert np.isnan([found.ess_bulk.value, found.ess_tail.value]).all()
    assert found.state == "short"
    assert "too few draws to tell how many of them are effective" in found.sentence
    longer = summary(quantities(chains=32, draws=10))
    assert longer[["ess_bulk", "ess_tail", "mcse_mean", "mcse_sd"]].notna().all(axis=None)


def test_the_draws_asked_for_would_do():
    found = judge(quantities(draws=400, phi=0.8))
    assert found.state == "short"
    wanted = int(found.sentence.split("--draws ")[1].split()[0])
    assert judge(quantities(draws=wanted, phi=0.8)).ess_bulk.value > ESS_GOOD


def test_very_slow_chains_are_told_to_thin():
    tree = quantities(draws=300, phi=0.0)
    table = summary(tree).assign(ess_bulk=5.0, r_hat=1.02)
    found = verdict(tree, table, {"thin": 2})
    assert found.sentence.endswith("a new run with --draws 3000 --thin 16 should do.")


def test_a_slow_energy():
    rng = np.random.default_rng(3)
    found = judge(quantities(draws=5000, energy=autoregressive(rng, 0.95, 4, 5000)))
    assert found.bfmi.value == pytest.approx(0.1, rel=0.3)
    assert found.state == "short"
    assert "energy changes slowly" in found.sentence


@pytest.mark.parametrize(("count", "state"), [(1, "short"), (100, "bad")])
def test_divergences_are_counted(count, state):
    diverging = np.zeros((4, 500), bool)
    diverging.flat[:count] = True
    found = judge(quantities(diverging=diverging), {"target_accept": 0.8})
    assert found.divergences == count
    assert found.state == state
    assert "--target-accept 0.9" in found.sentence


def test_one_chain_has_no_r_hat():
    found = judge(quantities(chains=1, draws=2000))
    assert found.state == "short"
    assert np.isnan(found.rhat.value)
    assert found.ess_bulk.value > 1000
    assert "--chains 4" in found.sentence


@pytest.mark.parametrize(("acceptance", "word"), [(0.8, "dead"), (0.01, "stand still")])
def test_a_constant_response(acceptance, word):
    rates = np.full((4, 500), acceptance)
    found = judge(quantities(response=np.full((4, 500), 2.5), acceptance_rate=rates))
    assert found.state == "bad"
    assert word in found.sentence
    # The other quantities are judged all the same.
    assert found.rhat.of != "response"
    assert found.rhat.value < 1.02


def test_a_chain_that_stands_still():
    tree = quantities()
    tree["posterior/response"][2] = 0.3
    found = judge(tree, {"warmup": 100})
    assert found.state == "bad"
    assert found.sentence.startswith("1 of 4 chains stand still")
    assert "--warmup 200" in found.sentence


def test_everything_constant():
    zeros = np.zeros((4, 500))
    values = dict.fromkeys(("response", "lp", "energy"), zeros)
    values |= {name: np.zeros((4, 500, 2)) for name in ("projections", "pixels")}
    found = judge(quantities(**values))
    assert found.state == "bad"
    assert np.isnan([found.rhat.value, found.ess_bulk.value, found.bfmi.value]).all()


def test_draws_that_are_not_finite():
    tree = quantities()
    tree["posterior/response"][1, 100:] = np.nan
    tree["posterior/projections"][1, 90:95, 1] = np.inf
    found = judge(tree)
    assert found.nonfinite == 405
    assert found.state == "bad"
    assert "405 of 2,000 draws aren't finite" in found.sentence
