"""What the tests of the report share."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="session")
def write_run():
    """A function that leaves a run's folder as the chain driver does."""
    from ppl_cnn.inference.runs.store import DrawStore

    def write_run(folder, image, stein=0.0, config=None, record=None, **values):
        """A run's folder of one block; what isn't given is unremarkable.

        Args:
            folder: made here.
            image: (chain, draw, row, col, channel).
            stein: of every chain, (row, col, channel) or a scalar.
            config: fields of the record's configuration, besides the usual.
            record: fields of the record, besides that.
            values: `response` and `sample_stats` (chain, draw).
        """
        chains, draws, *shape = image.shape
        scalars = np.random.default_rng(9).normal(size=(3, chains, draws)).astype(np.float32)
        given = dict(zip(("response", "lp", "energy"), scalars, strict=True))
        given["acceptance_rate"] = np.full((chains, draws), 0.9, np.float32)
        given["diverging"] = np.zeros((chains, draws), bool)
        given |= values
        response = given.pop("response")
        folder.mkdir(exist_ok=True)
        store = DrawStore(folder / "draws.zarr", draws)
        sizes = {dim: range(n) for dim, n in zip(("row", "col", "channel"), shape, strict=True)}
        types = {name: value.dtype.type for name, value in given.items()}
        store.create({"chain": range(chains), **sizes}, types, {})
        block = {"posterior/image": image, "posterior/response": response}
        block |= {f"sample_stats/{name}": value for name, value in given.items()}
        block["stein/image"] = np.zeros((chains, 1, *shape), np.float32) + np.float32(stein)
        store.write(0, 0, {**block, "stein/draws": np.asarray([draws])})
        usual = {"kind": "sampling", "model": "alexnet-fashion", "unit": "conv5:12", "warmup": 100}
        made = {
            "config": usual | (config or {}),
            "command": "python -m ppl_cnn.sample",
            "draws": draws,
        }
        (folder / "run.json").write_text(json.dumps(made | (record or {})))
        return folder

    return write_run
