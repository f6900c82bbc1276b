"""A network of one's own, as a user would write it: `--model tests.models.own_network:factory`."""

import jax.numpy as jnp
from flax import nnx

import ppl_cnn

CLASSES = ("cat", "dog", "fire engine")


class Block(nnx.Module):
    """Convolution, normalization, nonlinearity."""

    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(inputs, outputs, (3, 3), strides=stride, rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.norm(self.conv(x)))


class OwnNetwork(nnx.Module):
    """A small CNN for RGB images of 16x16."""

    image_shape = (16, 16, 3)
    classes = CLASSES

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 8, (5, 5), rngs=rngs)
        self.blocks = nnx.List([Block(8, 12, 2, rngs), Block(12, 12, 1, rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(4 * 4 * 12, len(CLASSES), rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        self.sow(nnx.Intermediate, "relu", x, capture_noop=True)
        for block in self.blocks:
            x = block(x)
        x = nnx.max_pool(x, (2, 2), (2, 2))
        return self.dense(self.dropout(x.reshape(x.shape[0], -1)))


def factory() -> OwnNetwork:
    """What `--model` calls: here with random weights, as if it were trained."""
    network = OwnNetwork(nnx.Rngs(0))
    for block in network.blocks:
        # Running averages as training would leave them, unlike those of a batch.
        block.norm.mean[...] = jnp.linspace(-1.0, 1.0, 12)
        block.norm.var[...] = jnp.linspace(0.5, 2.0, 12)
    return network


def ready() -> ppl_cnn.ModuleNetwork:
    """The same with a preprocessing, as a network that is ready."""
    preprocessing = ppl_cnn.Preprocessing(
        mean=(127.5, 127.5, 127.5), scale=(1 / 64, 1 / 64, 1 / 64)
    )
    return ppl_cnn.ModuleNetwork(factory(), (16, 16, 3), preprocessing, classes=CLASSES)
