"""What convolutions cost in a loop, where samplers live: ours against XLA's own there.

    python -m benchmarks.speed.loops                 # 2 minutes
    python -m benchmarks.speed.loops net.onnx        # a file's network, its last layer's channel 0

For ResNet-18, MobileNetV2 and a Flax NNX module of depthwise convolutions, with random weights and
one image of 224 pixels, a JSON object a line:

    lax_over_ours: seconds of a gradient of the score with XLA's convolutions, in a loop of five,
        over those with ours in the same loop; median of rounds in turn, with its range
    loop_over_outside: seconds of our gradient in that loop over those of a call of it alone
    slab_over_whole: of ResNet-18's layer2.0.conv1, the gradient on the receptive field of its
        centre over that of class 0 on the whole image, both outside a loop
    milliseconds: of our gradient outside a loop, in one, and of lax's in one
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
from flax import nnx
from jax import lax

import ppl_cnn
from benchmarks.common import command_line, in_turn, say, seconds, spread
from ppl_cnn.models.networks import layers
from ppl_cnn.models.networks.catalogue import network_named
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.onnx_network import open_onnx

STEPS, ROUNDS = 5, 5
NETWORKS = ("resnet18", "mobilenet_v2")


class Depthwise(nnx.Module):
    """Depthwise 3x3 and 1x1 convolutions by turns, as in MobileNets."""

    image_shape = (112, 112, 3)

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 128)) -> None:
        rngs = nnx.Rngs(0)
        self.convolutions = nnx.List([nnx.Conv(3, widths[0], (3, 3), strides=2, rngs=rngs)])
        for read, made in pairwise(widths):
            self.convolutions += [
                nnx.Conv(read, read, (3, 3), feature_group_count=read, rngs=rngs),
                nnx.Conv(read, made, (1, 1), rngs=rngs),
            ]

    def __call__(self, x: jax.Array) -> jax.Array:
        for convolution in self.convolutions:
            x = nnx.relu(convolution(x))
        return x.mean(axis=(1, 2))


def plain(
    x: Any,
    kernel: Any,
    *,
    stride: int | tuple[int, int],
    padding: Any,
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> jax.Array:
    """`convolve` by XLA alone."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride) if isinstance(stride, int) else stride,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


class Side(NamedTuple):
    """A score of an image, and its weights."""

    score: Callable[[Any, Any], jax.Array]
    params: Any

    @property
    def gradient(self) -> Callable[[Any, Any], jax.Array]:
        """For the image."""
        return jax.grad(self.score, argnums=1)

    def walk(self, image: jax.Array) -> Callable[[], float]:
        """Seconds of a compiled loop in which an image follows the gradient."""

        def walked(params: Any, image: Any) -> Any:
            return lax.fori_loop(0, STEPS, lambda _, x: x + self.gradient(params, x), image)

        return timed(walked, self.params, image)

    def once(self, image: jax.Array) -> Callable[[], float]:
        """Seconds of the gradient by itself."""
        return timed(self.gradient, self.params, image)


def timed(function: Callable[..., Any], *arguments: Any) -> Callable[[], float]:
    """The seconds of a function's compiled program."""
    program = jax.jit(function).lower(*arguments).compile()
    return partial(seconds, program, *arguments)


def compare(name: str, ours: Side, theirs: Side, shape: tuple[int, int, int], rounds: int) -> None:
    """Prints the line of one network."""
    image = 10 * jax.random.normal(jax.random.key(0), shape)
    once, loop, lax_loop = ours.once(image), ours.walk(image), theirs.walk(image)
    against_lax, against_one = in_turn(lax_loop, loop, rounds), in_turn(loop, once, rounds)
    (walk, alone), (lax_walk, _) = against_one.medians, against_lax.medians
    say(
        model=name,
        **spread("lax_over_ours", against_lax.ratios),
        **spread("loop_over_outside", against_one.ratios / STEPS),
        milliseconds=[round(1e3 * each, 1) for each in (alone, walk / STEPS, lax_walk / STEPS)],
    )


def of_network(cnn: CNN, rounds: int) -> None:
    """Prints the line of a declared network, by its first score."""
    unit = cnn.unit(f"{cnn.declaration.score_layer.name}:0")

    def by_lax(params: Any, image: Any) -> jax.Array:
        with mock.patch.object(layers, "convolve", plain):
            return unit.score(params, image)

    ours, theirs = Side(unit.score, unit.params), Side(by_lax, unit.params)
    compare(cnn.declaration.name, ours, theirs, unit.shape, rounds)


def of_module(module: Depthwise, rounds: int) -> None:
    """Prints the line of a Flax module, opened by us and as it is."""
    unit = ppl_cnn.ModuleNetwork(module, module.image_shape).unit("output:0")
    graph, state = nnx.split(module)

    def as_it_is(state: Any, image: Any) -> jax.Array:
        return nnx.merge(graph, state)(image[None])[0, 0]

    ours, theirs = Side(unit.score, unit.params), Side(as_it_is, state)
    compare("an NNX module, depthwise", ours, theirs, unit.shape, rounds)


def slab(cnn: CNN, text: str, rounds: int) -> None:
    """Prints what a unit's receptive field saves."""
    unit, whole = cnn.unit(text), cnn.unit(f"{cnn.declaration.score_layer.name}:0")
    part, image = (
        Side(each.score, each.params).once(jax.random.normal(jax.random.key(0), each.shape))
        for each in (unit, whole)
    )
    ratios = in_turn(part, image, rounds).ratios
    say(model=cnn.declaration.name, unit=text, **spread("slab_over_whole", ratios))


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="ONNX files of networks besides")
    options = parser.parse_args()
    names, rounds = (["alexnet-fashion"], 2) if options.toy else (NETWORKS, ROUNDS)
    for name in names:
        of_network(CNN.random(network_named(name)), rounds)
    for path in options.files:
        of_network(open_onnx(path, pixels="raw"), rounds)
    of_module(Depthwise((4, 4)) if options.toy else Depthwise(), rounds)
    if not options.toy:
        slab(CNN.random(network_named(NETWORKS[0])), "layer2.0.conv1:0", rounds)


if __name__ == "__main__":
    main()
