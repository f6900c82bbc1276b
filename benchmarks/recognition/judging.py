"""What the judge, another network, makes of images."""

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.common import real, squeezenet

JUDGE = "PPL_CNN_JUDGE_PYTHON"
"""The variable that names a Python in which benchmarks/recognition/judge.py runs."""


def judged(images, *, toy=False):
    """The judge's log-probabilities of several arrays of images, by their names.

    Args:
        images: name -> uint8 RGB images (n, row, col, 3).
        toy: the judge is SqueezeNet with random weights.

    Returns:
        Name -> log p(class | image), (n, 1000).
    """
    if toy:
        return {name: _toy_judge()(each) for name, each in images.items()}
    python = os.environ.get(JUDGE)
    if not python:
        sys.exit(f"Set {JUDGE} to a Python that can run benchmarks/recognition/judge.py.")
    with tempfile.TemporaryDirectory() as folder:
        given, answers = Path(folder) / "images.npz", Path(folder) / "answers.npz"
        np.savez(given, **images)
        judge = Path(__file__).with_name("judge.py")
        subprocess.run([python, judge, given, answers], check=True, stdout=subprocess.DEVNULL)
        with np.load(answers) as found:
            return {name: found[name] for name in found.files}


@cache
def _toy_judge():
    network = squeezenet(32, toy=True)

    def answer(images):
        small = [np.asarray(Image.fromarray(image).resize((32, 32))) for image in images]
        return np.asarray(jax.nn.log_softmax(network(jnp.asarray(np.asarray(small, np.float32)))))

    return answer


def known_photographs(*, toy=False):
    """How many of foolbox's 20 photographs the judge knows, first and among five."""
    if toy:
        return 0, 0
    photographs = real("foolbox/**/imagenet_*.jpg")
    images = {path.stem: np.asarray(Image.open(path).convert("RGB"))[None] for path in photographs}
    ranks = [
        rank_of(answer, int(name.rpartition("_")[2]))[0] for name, answer in judged(images).items()
    ]
    return sum(rank == 0 for rank in ranks), sum(rank < 5 for rank in ranks)


def rank_of(answer, index):
    """For each image, how many classes the judge finds likelier than that one."""
    return (answer > answer[:, index : index + 1]).sum(axis=1)
