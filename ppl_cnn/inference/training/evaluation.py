"""How good a classifier is on a split, and the class offsets that make one of a generative net.

All devices of all processes share the work: each batch is spread over them, and the little that
is kept of an image comes back to every process.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt8

from ppl_cnn.data import ImageBatch, ImageSplit, batches
from ppl_cnn.inference.training.losses import LogMeanExp, class_offsets
from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.trained.cnn import preprocess

EVALUATION_BATCH = 250
"""Images at a time over all devices, rounded up to a multiple of these."""
CALIBRATION_BINS = 15

ALPHA_IMAGES = 10_000
"""Training images, or 50 a class if that is more, from which alpha is estimated for a test within
a generative stage; at its end, all are taken."""

type Reader = Callable[..., Iterator[ImageBatch]]
"""`batches`, or another of its signature that gives several views of each image."""


class Predictions(NamedTuple):
    """What is kept of a classifier's answer to each image."""

    label: Int[Array | np.ndarray, " n"]
    """The image's class; negative where there is no image."""
    rank: Int[Array | np.ndarray, " n"]
    """Of that class among all. 0 is the first; among equals the one of lower index is before the
    other, and where scores are not numbers the rank is the last."""
    log_prob: Float[Array | np.ndarray, " n"]
    """Of that class."""
    confidence: Float[Array | np.ndarray, " n"]
    """Probability of the first class."""

    @classmethod
    def of(cls, log_probs: Float[Array, "n c"], labels: Int[Array, " n"]) -> "Predictions":
        """From the log-probabilities of all classes."""
        own = jnp.take_along_axis(log_probs, labels[:, None], axis=1)
        later = jnp.arange(log_probs.shape[1])[None, :] > labels[:, None]
        behind = (log_probs < own) | ((log_probs == own) & later)
        rank = log_probs.shape[1] - 1 - jnp.sum(behind, axis=1)
        return cls(labels, rank, own[:, 0], jnp.exp(jnp.max(log_probs, axis=1)))

    def images(self) -> "Predictions":
        """Those of real images, on the host."""
        host = Predictions(*map(np.asarray, self))
        return Predictions(*(values[host.label >= 0] for values in host))


def evaluate(
    network: Network,
    params: Params,
    alpha: Float[Array, " c"],
    test: ImageSplit,
    mesh: Mesh | None = None,
    read: Reader = batches,
) -> dict[str, float]:
    """Errors, likelihood and calibration on test images: `summary` of F + alpha and, under keys
    that end in `_without_alpha`, of F.

    Args:
        network: the declaration.
        params: its weights, the same in every process.
        alpha: class offsets.
        test: the images.
        mesh: the devices, with an axis "data"; by default all.
        read: gives the images, (n, row, col, channel), or views of them, (n, view, row, col,
            channel): the classes' probabilities are averaged over those, as AlexNet's are over
            ten crops.
    """
    mesh = mesh or _all_devices()
    everywhere = NamedSharding(mesh, PartitionSpec())
    answers = []
    for images, labels in _spread_batches(network, test, mesh, read):
        views = jnp.unstack(images, axis=1) if images.ndim == 5 else [images]
        F = [_scores(network, params, view) for view in views]
        pair = _predict(everywhere, F, alpha, labels)
        answers.append([predictions.images() for predictions in pair])
    with_alpha, without = (
        Predictions(*map(np.concatenate, zip(*parts, strict=True)))
        for parts in zip(*answers, strict=True)
    )
    bare = {f"{key}_without_alpha": value for key, value in summary(without).items()}
    return summary(with_alpha) | bare


def estimate_alpha(
    network: Network, params: Params, data: ImageSplit, mesh: Mesh | None = None
) -> Float[Array, " c"]:
    """alpha_y = log rho_y - log Z_y, with Z_y = mean_j exp F[j,y] over the images of a split.

    Args:
        network: the declaration.
        params: its weights, as the generative gradient has left them.
        data: training images, all of them or a fair part.
        mesh: as in `evaluate`.
    """
    mesh = mesh or _all_devices()
    everywhere = NamedSharding(mesh, PartitionSpec())
    log_partition = LogMeanExp.zero(len(data.classes))
    counts = np.zeros(len(data.classes), np.int64)
    for images, labels in _spread_batches(network, data, mesh, batches):
        F = _scores(network, params, images)
        log_partition, count = _add_scores(everywhere, log_partition, F, labels)
        counts += np.asarray(count)  # waits, so that batches don't pile up on the device
    return class_offsets(log_partition.value(), counts)


def summary(predictions: Predictions) -> dict[str, float]:
    """What a classifier's answers come to.

    - `test_error`, `top5_error`: the shares of images whose class is not the first, or not among
      the first five; with their binomial standard errors, sqrt(e (1 - e) / n).
    - `log_loss`: the mean of -log p(y_i|x_i) in nats, with its standard error.
    - `calibration_error`: see `calibration_error`.

    Args:
        predictions: of real images.
    """
    rank, confidence = np.asarray(predictions.rank), np.asarray(predictions.confidence)
    losses = -np.asarray(predictions.log_prob, np.float64)
    top1, top5 = (_share(rank >= k) for k in (1, 5))
    return {
        "test_error": top1[0],
        "standard_error": top1[1],
        "top5_error": top5[0],
        "top5_standard_error": top5[1],
        "log_loss": float(np.mean(losses)),
        "log_loss_standard_error": float(np.std(losses) / np.sqrt(len(losses))),
        "calibration_error": calibration_error(confidence, rank == 0),
    }


def calibration_error(
    confidence: Float[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    bins: int = CALIBRATION_BINS,
) -> float:
    """The expected calibration error of a classifier's confidence in its first class.

        ECE = sum_b n_b/n | share right in b - mean confidence in b |

    over bins of equal width, (0, 1/bins], (1/bins, 2/bins], ... It is 0 only in the limit: with n
    images, chance alone makes about sqrt(bins / n) of it at a calibrated classifier.

    Args:
        confidence: the largest class probability of each image.
        right: whether that class is the image's.
        bins: their number.

    Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017.
    """
    confidence = np.asarray(confidence, np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, right - confidence, minlength=bins)
    return float(np.sum(np.abs(gaps)) / len(confidence))


def _share(events: Bool[np.ndarray, " n"]) -> tuple[float, float]:
    """The share of images at which something happens, and its standard error."""
    share = float(np.mean(events))
    return share, (share * (1 - share) / len(events)) ** 0.5


@partial(jax.jit, static_argnums=0)
def _scores(
    network: Network, params: Params, images: UInt8[Array, "n row col channel"]
) -> Float[Array, "n c"]:
    return scores(network, params, preprocess(images, network.preprocessing, network.image_shape))


@partial(jax.jit, static_argnums=0)
def _predict(
    everywhere: NamedSharding,
    F: list[Float[Array, "n c"]],
    alpha: Float[Array, " c"],
    labels: Int[Array, " n"],
) -> tuple[Predictions, Predictions]:
    """With alpha and without, from the score matrix of each view."""

    def of(offsets: Float[Array, " c"]) -> Predictions:
        views = jnp.stack([jax.nn.log_softmax(scores + offsets[None, :]) for scores in F])
        log_probs = jax.nn.logsumexp(views, axis=0) - jnp.log(len(F))
        return Predictions.of(log_probs, labels)

    return jax.lax.with_sharding_constraint((of(alpha), of(jnp.zeros_like(alpha))), everywhere)


@partial(jax.jit, static_argnums=0)
def _add_scores(
    everywhere: NamedSharding,
    log_partition: LogMeanExp,
    F: Float[Array, "n c"],
    labels: Int[Array, " n"],
) -> tuple[LogMeanExp, Int[Array, " c"]]:
    valid = labels >= 0
    count = jnp.sum(jax.nn.one_hot(labels, F.shape[1], dtype=jnp.int32), axis=0)
    return jax.lax.with_sharding_constraint((log_partition.add(F, valid), count), everywhere)


def _all_devices() -> Mesh:
    return Mesh(np.asarray(jax.devices()), ("data",))


def _spread_batches(
    network: Network, split: ImageSplit, mesh: Mesh, read: Reader
) -> Iterator[tuple[Array, Array]]:
    """A split's images and labels over the devices; the last batch is filled up with label -1."""
    size = -(-EVALUATION_BATCH // mesh.size) * mesh.size
    rows = NamedSharding(mesh, PartitionSpec("data"))
    seen = {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
        "image_shape": network.image_shape,
        "short_side": network.preprocessing.short_side,
    }
    for batch in read(split, size, **seen):
        missing = size // jax.process_count() - len(batch["label"])
        images = np.pad(batch["image"], ((0, missing), *[(0, 0)] * (batch["image"].ndim - 1)))
        labels = np.pad(batch["label"], (0, missing), constant_values=-1)
        yield (
            jax.make_array_from_process_local_data(rows, images),
            jax.make_array_from_process_local_data(rows, labels),
        )
