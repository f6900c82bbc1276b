"""Tests of a classifier, and the class offsets that turn a generatively trained network into one.

All devices of all processes share the work: each batch is spread over them, and the few numbers
that are kept of an image come back to every process.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt8

from ppl_cnn.data import ImageBatch, ImageSplit, batches
from ppl_cnn.inference.training.losses import LogMeanExp, class_offsets
from ppl_cnn.inference.training.networks.trainable import Inferring, Trainable
from ppl_cnn.inference.training.placement import data_mesh
from ppl_cnn.models.trained.cnn import preprocess

EVALUATION_BATCH = 250
"""Views of images at a time: over all devices of a CPU, on each of other devices."""
CALIBRATION_BINS = 15
"""Bins of the calibration error, as in the paper that `calibration_error` cites."""
TOP = 5
"""Classes that an image's own must be among for the top-5 error."""
ALPHA_IMAGES = 10_000
"""Least number of training images from which alpha is estimated for a test within a generative
stage; at its end, all are taken."""
ALPHA_IMAGES_PER_CLASS = 50
"""As `ALPHA_IMAGES`, for each class: the larger number counts."""

type Reader = Callable[..., Iterator[ImageBatch]]
"""`batches`, or a function of its signature that gives several views of each image."""


class Predictions(NamedTuple):
    """What is kept of a classifier's answer to each of n images."""

    label: Int[Array | np.ndarray, " n"]
    """The image's class; negative where a row has no image."""
    rank: Int[Array | np.ndarray, " n"]
    """Rank of the image's class by probability; 0 is the most probable. Equals are ranked by index;
    where scores are not numbers, the rank is the last."""
    log_prob: Float[Array | np.ndarray, " n"]
    """Log-probability of the image's class, in nats."""
    confidence: Float[Array | np.ndarray, " n"]
    """Probability of the most probable class."""

    @classmethod
    def of(cls, log_probs: Float[Array, "n c"], labels: Int[Array, " n"]) -> "Predictions":
        """The predictions that log-probabilities of all classes amount to.

        Args:
            log_probs: log-probability of every class for every image.
            labels: class of every image; negative for rows without one.
        """
        own = jnp.take_along_axis(log_probs, labels[:, None], axis=1)
        later = jnp.arange(log_probs.shape[1])[None, :] > labels[:, None]
        behind = (log_probs < own) | ((log_probs == own) & later)
        rank = log_probs.shape[1] - 1 - jnp.sum(behind, axis=1)
        return cls(labels, rank, own[:, 0], jnp.exp(jnp.max(log_probs, axis=1)))

    def images(self) -> "Predictions":
        """The rows that have an image, as NumPy arrays."""
        host = Predictions(*map(np.asarray, self))
        return Predictions(*(values[host.label >= 0] for values in host))


def evaluate(
    network: Trainable,
    weights: Inferring,
    test: ImageSplit,
    *,
    alpha: Float[Array, " c"],
    mesh: Mesh | None = None,
    read: Reader = batches,
    views: int = 1,
) -> dict[str, float]:
    """Errors, likelihood and calibration on test images.

    Args:
        network: the network.
        weights: all that its inference needs, the same in every process.
        test: the images.
        alpha: class offsets.
        mesh: the devices, with an axis "data"; by default all.
        read: reads the images, (n, row, col, channel), or several views of each, (n, view, row,
            col, channel), over which the class probabilities are averaged, as AlexNet's are over
            ten crops.
        views: number of views that `read` gives of an image.

    Returns:
        `summary` of the classifier F + alpha and, under keys that end in `_without_alpha`, of F.
        Five classes or fewer have no top-5 error.
    """
    mesh = mesh or data_mesh()
    everywhere = NamedSharding(mesh, PartitionSpec())
    answers = []
    for images, labels in _spread_batches(network, test, mesh, read, views):
        seen = jnp.unstack(images, axis=1) if images.ndim == 5 else [images]
        F = [_scores(network, weights, view) for view in seen]
        pair = _predict(everywhere, F, alpha, labels)
        answers.append([predictions.images() for predictions in pair])
    with_alpha, without = (
        Predictions(*map(np.concatenate, zip(*parts, strict=True)))
        for parts in zip(*answers, strict=True)
    )
    bare = {f"{key}_without_alpha": value for key, value in summary(without).items()}
    found = summary(with_alpha) | bare
    several = alpha.shape[0] > TOP
    return {key: value for key, value in found.items() if several or not key.startswith("top5")}


def estimate_alpha(
    network: Trainable,
    weights: Inferring,
    data: ImageSplit,
    *,
    mesh: Mesh | None = None,
    read: Reader = batches,
) -> Float[Array, " c"]:
    """The class offsets alpha_y = log rho_y - log Z_y of a generatively trained network.

    Z_y = mean_j exp F[j,y] over the images, and rho_y is the share of class y among them.

    Args:
        network: the network.
        weights: all that its inference needs, the same in every process.
        data: training images, all of them or a random part.
        mesh: the devices, with an axis "data"; by default all.
        read: reads the images.
    """
    mesh = mesh or data_mesh()
    everywhere = NamedSharding(mesh, PartitionSpec())
    log_partition = LogMeanExp.zero(len(data.classes))
    counts = np.zeros(len(data.classes), np.int64)
    for images, labels in _spread_batches(network, data, mesh, read):
        F = _scores(network, weights, images)
        log_partition, count = _add_scores(everywhere, log_partition, F, labels)
        counts += np.asarray(count)  # waits, so that batches don't pile up on the device
    return class_offsets(log_partition.value(), counts)


def summary(predictions: Predictions) -> dict[str, float]:
    """Errors, likelihood and calibration of a classifier.

    - `test_error`, `top5_error`: shares of images whose class is not the most probable, or not
      among the five most probable, with their binomial standard errors sqrt(e (1 - e) / n).
    - `log_loss`: mean of -log p(y_i|x_i) in nats, with its standard error.
    - `calibration_error`: see `calibration_error`.

    Args:
        predictions: rows that all have an image.
    """
    rank, confidence = np.asarray(predictions.rank), np.asarray(predictions.confidence)
    losses = -np.asarray(predictions.log_prob, np.float64)
    top1, top5 = (_share(rank >= k) for k in (1, TOP))
    return {
        "test_error": top1[0],
        "standard_error": top1[1],
        "top5_error": top5[0],
        "top5_standard_error": top5[1],
        "log_loss": float(np.mean(losses)),
        "log_loss_standard_error": float(np.std(losses) / np.sqrt(len(losses))),
        "calibration_error": calibration_error(confidence, rank == 0),
    }


def evaluation_batch(platform: str, devices: int, views: int) -> int:
    """Images at a time: as many as fill the devices, and a multiple of their number.

    Args:
        platform: JAX's name of the devices' kind. A CPU is filled by few images, however many
            devices it plays.
        devices: their number, over all processes.
        views: number of views of each image, which lie on the devices together.
    """
    images = EVALUATION_BATCH if platform == "cpu" else EVALUATION_BATCH * devices // views
    return -(-images // devices) * devices


def calibration_error(
    confidence: Float[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    bins: int = CALIBRATION_BINS,
) -> float:
    """Expected calibration error (ECE) of a classifier's confidence in its most probable class.

        ECE = sum_b n_b/n | share right in b - mean confidence in b |

    over bins b of equal width, (0, 1/bins], (1/bins, 2/bins], ... It is 0 only in the limit: with
    n images, chance alone gives a calibrated classifier about sqrt(bins / n).

    Args:
        confidence: the largest class probability for each image.
        right: whether the most probable class is the image's.
        bins: number of bins.

    Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017.
    """
    confidence = np.asarray(confidence, np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, right - confidence, minlength=bins)
    return float(np.sum(np.abs(gaps)) / len(confidence))


def _share(events: Bool[np.ndarray, " n"]) -> tuple[float, float]:
    """The share of images at which an event happens, and its binomial standard error."""
    share = float(np.mean(events))
    return share, (share * (1 - share) / len(events)) ** 0.5


@partial(jax.jit, static_argnums=0)
def _scores(
    network: Trainable, weights: Inferring, images: UInt8[Array, "n row col channel"]
) -> Float[Array, "n c"]:
    return network.scores(weights, preprocess(images, network.preprocessing, network.image_shape))


@partial(jax.jit, static_argnums=0)
def _predict(
    everywhere: NamedSharding,
    F: list[Float[Array, "n c"]],
    alpha: Float[Array, " c"],
    labels: Int[Array, " n"],
) -> tuple[Predictions, Predictions]:
    """Predictions with alpha and without, from the score matrix of each view."""

    def of(offsets: Float[Array, " c"]) -> Predictions:
        views = jnp.stack([jax.nn.log_softmax(scores + offsets[None, :]) for scores in F])
        log_probs = jax.nn.logsumexp(views, axis=0) - jnp.log(len(F))
        return Predictions.of(log_probs, labels)

    pair = of(alpha), of(jnp.zeros_like(alpha))
    constrained: tuple[Predictions, Predictions]
    constrained = jax.lax.with_sharding_constraint(pair, everywhere)
    return constrained


@partial(jax.jit, static_argnums=0)
def _add_scores(
    everywhere: NamedSharding,
    log_partition: LogMeanExp,
    F: Float[Array, "n c"],
    labels: Int[Array, " n"],
) -> tuple[LogMeanExp, Int[Array, " c"]]:
    valid = labels >= 0
    count = jnp.sum(jax.nn.one_hot(labels, F.shape[1], dtype=jnp.int32), axis=0)
    added = log_partition.add(F, valid), count
    constrained: tuple[LogMeanExp, Int[Array, " c"]]
    constrained = jax.lax.with_sharding_constraint(added, everywhere)
    return constrained


def _spread_batches(
    network: Trainable, split: ImageSplit, mesh: Mesh, read: Reader, views: int = 1
) -> Iterator[tuple[Array, Array]]:
    """Images and labels spread over the devices; the last batch is filled up with label -1.

    The next batch is on its way when one is handed out.
    """
    size = evaluation_batch(mesh.devices.flat[0].platform, mesh.size, views)
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def spread(batch: ImageBatch) -> tuple[Array, Array]:
        missing = size // jax.process_count() - len(batch["label"])
        images = np.pad(batch["image"], ((0, missing), *[(0, 0)] * (batch["image"].ndim - 1)))
        labels = np.pad(batch["label"], (0, missing), constant_values=-1)
        return (
            jax.make_array_from_process_local_data(rows, images),
            jax.make_array_from_process_local_data(rows, labels),
        )

    seen = {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
        "image_shape": network.image_shape,
        "short_side": network.preprocessing.short_side,
    }
    coming = map(spread, read(split, size, **seen))
    ahead = deque(islice(coming, 1))
    for following in coming:
        ahead.append(following)
        yield ahead.popleft()
    yield from ahead
