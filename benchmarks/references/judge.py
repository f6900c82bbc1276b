"""A residual network of our own that judges class samples of networks trained on grey images.

It shares neither architecture nor training images with what it judges: the sampled networks are
LeNets and an AlexNet, trained as they are without normalisation and residuals, and it sees
the part `judge` of a `DataSet` alone.
"""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.references.ten_classes import CLASSES
from ppl_cnn.inference.training.generators.figures import Looked
from ppl_cnn.models.generators.layers import (
    conv,
    conv_weights,
    dense,
    dense_weights,
    mlp,
    mlp_weights,
)

WIDTHS = 32, 64
"""Channels at 14x14 and at 7x7."""
FEATURES = 64
_BATCH = 128
_LOOK = 100


def judge(path, training, *, epochs, mirrored):
    """A function of images (n, 28, 28, 1), pixels 0..255, to what the judge sees in them.

    Args:
        path: the file of its weights; it is trained if there is none.
        training: the images that it is trained on.
        epochs: how often it sees each of them.
        mirrored: whether it sees half of them mirrored.
    """
    if not path.exists():
        _train(path, training, epochs, mirrored)
    with np.load(path) as file:
        leaves = [jnp.asarray(file[name]) for name in file.files]
    params = jax.tree.unflatten(jax.tree.structure(_first_weights(jax.random.key(0))), leaves)

    def look(images):
        """Features and logits."""
        parts = [images[first : first + _LOOK] for first in range(0, len(images), _LOOK)]
        seen = [_look(params, np.pad(part, _room(part))) for part in parts]
        both = zip(*(Looked(*map(np.asarray, each)) for each in seen), strict=True)
        return Looked(*(np.concatenate(each)[: len(images)] for each in both))

    return look


def _room(part):
    return (0, _LOOK - len(part)), (0, 0), (0, 0), (0, 0)


def _first_weights(key):
    keys = jax.random.split(key, 8)
    wide, deep = WIDTHS
    return {
        "stem": conv_weights(keys[0], 3, 4, wide),
        "block1": conv_weights(keys[1], 3, wide, wide),
        "down": conv_weights(keys[2], 1, 4 * wide, deep),
        "block2": conv_weights(keys[3], 3, deep, deep),
        "block3": conv_weights(keys[4], 3, deep, deep),
        "block4": conv_weights(keys[5], 3, deep, deep),
        **mlp_weights(keys[6], "features", (2 * deep, FEATURES)),
        "logits": dense_weights(keys[7], FEATURES, CLASSES),
    }


def _seen(params, images):
    x = _packed((images.astype(jnp.float32) - 73) / 90)
    x = conv(params["stem"], x)
    x = _residual(params["block1"], x)
    x = conv(params["down"], _packed(x))
    for name in ("block2", "block3", "block4"):
        x = _residual(params[name], x)
    pooled = jnp.concatenate([x.mean(axis=(1, 2)), x.max(axis=(1, 2))], axis=1)
    features = jax.nn.gelu(mlp(params, "features", pooled, layers=1))
    return features, dense(params["logits"], features)


_look = jax.jit(_seen)


def _residual(weights, x):
    return x + jax.nn.gelu(conv(weights, jax.nn.standardize(x, axis=(1, 2, 3))))


def _packed(x):
    """Squares of 2x2 places as channels."""
    n, rows, cols, channels = x.shape
    squares = x.reshape(n, rows // 2, 2, cols // 2, 2, channels)
    return squares.transpose(0, 1, 3, 2, 4, 5).reshape(n, rows // 2, cols // 2, 4 * channels)


def _train(path, training, epochs, mirrored):
    batch = min(_BATCH, len(training.labels))
    per_epoch = len(training.labels) // batch
    params = _first_weights(jax.random.key(1))
    rate = optax.cosine_onecycle_schedule(epochs * per_epoch, 4e-3, 0.2)
    rule = optax.adamw(rate, weight_decay=1e-3)

    def loss(params, images, labels):
        wanted = optax.smooth_labels(jax.nn.one_hot(labels, CLASSES), 0.05)
        return optax.softmax_cross_entropy(_seen(params, images)[1], wanted).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, images, labels):
        descent, state = rule.update(jax.grad(loss)(params, images, labels), state, params)
        return optax.apply_updates(params, descent), state

    rng, state = np.random.default_rng(1), rule.init(params)
    for epoch in range(epochs):
        order = rng.permutation(len(training.labels))[: per_epoch * batch]
        for chosen in order.reshape(per_epoch, batch):
            images = training.images[chosen]
            turned = (rng.random(batch) < 0.5) & mirrored
            images[turned] = images[turned, :, ::-1]
            params, state = step(params, state, images, training.labels[chosen])
        print(f"judge: epoch {epoch + 1} of {epochs}", file=sys.stderr, flush=True)
    np.savez(path, *(np.asarray(leaf) for leaf in jax.tree.leaves(params)))
