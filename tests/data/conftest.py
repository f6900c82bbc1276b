"""Photographs that the tests make: smooth noise in colour, as JPEG."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB image whose brightness has ten and whose colours have two details across."""
    random = np.random.default_rng(seed)
    bright, tint = (
        Image.fromarray(random.integers(low, high, shape, np.uint8)).resize((width, height))
        for low, high, shape in ((30, 220, (8, 10)), (0, 70, (2, 2, 3)))
    )
    return Image.fromarray(np.asarray(bright)[..., None] // 2 + np.asarray(tint))


def jpeg(width: int, height: int, seed: int = 0, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    smooth(width, height, seed).convert(mode).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture
def photograph():
    """A function of width, height, seed and mode to a JPEG file's bytes."""
    return jpeg


@pytest.fixture
def tree(tmp_path):
    """A function of counts by class to a tree in ImageNet's layout, sizes varying."""

    def make(train: dict[str, int], test: dict[str, int], name: str = "tree") -> Path:
        random = np.random.default_rng(0)
        for split, counts in (("train", train), ("val", test)):
            for label, count in counts.items():
                folder = tmp_path / name / split / label
                folder.mkdir(parents=True)
                for index in range(count):
                    width, height = random.integers(40, 90, 2).tolist()
                    content = jpeg(width, height, 100 * len(label) + index)
                    (folder / f"{index:04}.JPEG").write_bytes(content)
        return tmp_path / name

    return make
