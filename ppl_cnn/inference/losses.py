"""Losses of the score matrix F (image, class), and what generative training needs besides.

All of them are functions of the whole batch's F. The generative ones normalise down a column,
over images, so F must hold the global batch: under `jax.jit` with a sharded batch axis it does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def generative_loss(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Importance-sampled negative log likelihood of the images under their class's density.

        L = -mean_i [ F[i,y_i] - log( 1/n sum_j exp F[j,y_i] ) ]        softmax down a column

    The gradient is that of -mean_i log p_{y_i}(x_i)/q(x_i), with the batch standing for the
    reference q: E_{p_y}[grad f_y] becomes a mean over the batch with the self-normalised
    weights W_j = softmax_j F[j,y]. L >= -log n, and near that bound a single image carries all
    the weight (see `importance_ess`). A constant added to a column changes nothing: the last
    bias gets a gradient of zero, and alpha (`class_offsets`) must fill in for it afterwards.

    Args:
        F: score of every image for every class, of the global batch.
        labels: class of every image.

    Source: Dai, Lu, Wu, Generative modeling of convolutional neural networks, ICLR 2015,
    arXiv 1412.6296.
    """
    log_mean = jax.nn.logsumexp(F, axis=0) - jnp.log(F.shape[0])
    return jnp.mean(log_mean[labels] - _own_scores(F, labels))


def discriminative_loss(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Cross entropy of the classifier with logits F.

        L = -mean_i [ F[i,y_i] - log sum_c exp F[i,c] ]                 softmax along a row

    Args:
        F: logits of every image for every class.
        labels: class of every image.
    """
    return jnp.mean(jax.nn.logsumexp(F, axis=1) - _own_scores(F, labels))


OBJECTIVES = {"generative": generative_loss, "discriminative": discriminative_loss}


def _own_scores(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    return jnp.take_along_axis(F, labels[:, None], axis=1)[:, 0]


def class_ess(F: Float[Array, "n c"]) -> Float[Array, " c"]:
    """Effective sample size of the generative gradient's weights, of every class.

        ESS_y = 1 / sum_j W[j,y]^2,  W[j,y] = exp F[j,y] / sum_k exp F[k,y]

    Between 1 (one image stands for the whole reference) and n, also for a class without an image
    in the batch: the reference is all of it.

    Args:
        F: score of every image for every class, of the global batch.
    """
    return jnp.exp(2 * jax.nn.logsumexp(F, axis=0) - jax.nn.logsumexp(2 * F, axis=0))


def importance_ess(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """`class_ess` averaged over the batch: mean_i ESS_{y_i}.

    Args:
        F: score of every image for every class, of the global batch.
        labels: class of every image.
    """
    return jnp.mean(class_ess(F)[labels])


class LogMeanExp(NamedTuple):
    """A running log-mean-exp of each class's scores, without overflow: log Z_y so far."""

    log_sum: Float[Array, " c"]
    images: Float[Array, ""]

    @classmethod
    def zero(cls, classes: int) -> "LogMeanExp":
        """Of no images."""
        return cls(jnp.full(classes, -jnp.inf), jnp.zeros(()))

    def add(self, F: Float[Array, "n c"], valid: Bool[Array, " n"] | None = None) -> "LogMeanExp":
        """With a batch of scores, or with those rows of it that are valid."""
        rows = jnp.ones(F.shape[0], bool) if valid is None else valid
        batch = jax.nn.logsumexp(F, axis=0, where=rows[:, None])
        return LogMeanExp(jnp.logaddexp(self.log_sum, batch), self.images + jnp.sum(rows))

    def value(self) -> Float[Array, " c"]:
        """log( 1/n sum_j exp F[j,y] ) for every class y: an estimate of log Z_y under the data."""
        return self.log_sum - jnp.log(self.images)


def class_offsets(
    log_partition: Float[Array, " c"], label_counts: Int[np.ndarray, " c"]
) -> Float[Array, " c"]:
    """alpha_y = log rho_y - log Z_y, which makes F + alpha the logits of p(y|x).

    By Bayes, p(y|x) ∝ rho_y p_y(x) = rho_y exp(F_y(x)) q(x) / Z_y.

    Args:
        log_partition: log Z_y of every class.
        label_counts: images of every class, from which the priors rho are taken. A class without
            one counts as if it had half of one, so that its offset is finite.
    """
    counts = np.maximum(label_counts, 0.5)
    prior = counts / np.sum(counts)
    return jnp.log(jnp.asarray(prior, jnp.float32)) - log_partition
