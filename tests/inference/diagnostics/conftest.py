"""What the tests of the diagnosis share."""

import numpy as np
import pytest
import xarray as xr

from ppl_cnn.inference.runs.store import DrawStore


@pytest.fixture(scope="session")
def write_blocks():
    """A function that leaves the draws of a run in a store of several blocks, and no record."""

    def write(folder, image, block=7, stein=None):
        """A run's folder with these draws.

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

    return write


@pytest.fixture(scope="session")
def noise():
    """A function of chains, draws, shape and seed to images of white noise of deviation 10."""

    def noise(chains, draws, shape=(5, 4, 1), seed=0):
        return 10 * np.random.default_rng(seed).normal(size=(chains, draws, *shape))

    return noise


@pytest.fixture(scope="session")
def autoregressive():
    """A function of a generator, phi, chains and draws to chains of known autocorrelation."""

    def autoregressive(rng, phi, chains, draws):
        """Stationary, of unit variance; the ESS of the mean is N (1 - phi) / (1 + phi)."""
        values = rng.normal(size=(chains, draws))
        for step in range(1, draws):
            values[:, step] = phi * values[:, step - 1] + np.sqrt(1 - phi**2) * values[:, step]
        return values

    return autoregressive


@pytest.fixture(scope="session")
def quantities(autoregressive):
    """A function that returns what `scalars` does, of chains with a known autocorrelation."""

    def quantities(seed=0, chains=4, draws=500, phi=0.0, **given):
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

    return quantities
