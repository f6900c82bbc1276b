"""What a unit's slab saves: the gradient on a receptive field against that on a whole image.

    python -m benchmarks.speed.slab

For networks with random weights, a JSON object a line:

    slab_over_whole: the time of one jitted and batched value_and_grad of the centre unit's score
        on its receptive field, over that of the same unit read off the whole map of its layer,
        which the network computes on the whole image; median of rounds timed in turn, with its
        range
    multiplications: of the two responses, in millions; the whole's for all channels of the layer,
        of which the unit is one
"""

from functools import partial

import jax
import numpy as np

from benchmarks.common import command_line, in_turn, say, seconds, spread
from ppl_cnn.models.networks.catalogue import ALEXNET, ALEXNET_FASHION, CAFFENET, VGG16
from ppl_cnn.models.networks.forward import scaled
from ppl_cnn.models.networks.graph import shapes
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.networks.window import positions
from ppl_cnn.models.trained.cnn import CNN

FULL = [
    (ALEXNET, "conv5:12", (1, 2, 8)),
    (CAFFENET, "conv5:12", (1, 2, 8)),
    (VGG16, "conv5_3:12", (1,)),
]
TOY = [(ALEXNET_FASHION, "conv2:3", (1, 2))]
"""Network, unit and batches."""
ROUNDS = 9
CALLS = 4
"""Calls of either side in a round."""


def batched(score):
    """Value and gradient of a score of one image, for a batch and given weights."""
    return jax.jit(jax.vmap(jax.value_and_grad(score, argnums=1), in_axes=(None, 0)))


def on_whole_images(cnn, unit):
    """The unit's score of a whole image, its slab and the weights that this takes."""
    network, (layer, channel, place) = cnn.declaration, unit.name
    whole = Slab.of(network, layer, *positions(shapes(network)[layer]))
    names = {step.layer.name for step in whole.steps}
    params = {name: weights for name, weights in cnn.arrays().items() if name in names}

    def score(params, image):
        x = scaled(network.preprocessing, whole.crop(image)[None])
        return whole.respond(params, x)[0, *place, channel]

    return score, whole, params


def compare(cnn, text, batch, rounds):
    """Prints the line of one unit and batch size."""
    unit = cnn.unit(text)
    score, whole, params = on_whole_images(cnn, unit)
    images = 10 * jax.random.normal(jax.random.key(0), (batch, *cnn.declaration.image_shape))
    sides = [
        (batched(unit.score), unit.params, unit.slab.crop(images)),
        (batched(score), params, images),
    ]
    results = [jax.block_until_ready(gradient(*arguments)) for gradient, *arguments in sides]
    (value, gradient), (whole_value, whole_gradient) = results
    np.testing.assert_allclose(value, whole_value, rtol=1e-3, atol=1e-4 * np.abs(value).max())
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(gradient, unit.slab.crop(whole_gradient), atol=1e-4 * scale)
    one, other = (partial(seconds, *side, calls=CALLS) for side in sides)
    times = in_turn(one, other, rounds)
    say(
        model=cnn.declaration.name,
        unit=text,
        batch=batch,
        **spread("slab_over_whole", times.ratios),
        milliseconds=[round(1e3 * each, 1) for each in times.medians],
        multiplications=[round(slab.multiplications / 1e6, 1) for slab in (unit.slab, whole)],
    )


def main():
    toy = command_line(__doc__).parse_args().toy
    for network, unit, batches in TOY if toy else FULL:
        cnn = CNN.random(network)
        for batch in batches:
            compare(cnn, unit, batch, 2 if toy else ROUNDS)


if __name__ == "__main__":
    main()
