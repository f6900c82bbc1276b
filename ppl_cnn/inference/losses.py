"""Losses of the score matrix F (image, class), and what generative training needs besides.

All of them are functions of the whole batch's F. The generative ones normalise down a column,
over images, so F must hold the global batch: under `jax.jit` with a sharded batch axis it does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


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


def hybrid_loss(
    F: Float[Array, "n c"], labels: Int[Array, " n"], alpha: Float[Array, " c"], share: float
) -> Float[Array, ""]:
    """A weighted mean of both losses, and each of them where the share is 0 or 1.

        L = (1 - share) * generative(F) + share * discriminative(F + alpha)

    The weights add up to one, so that a rate means the same as for either loss alone: the plain
    sum of both is that of share = 1/2 at twice the rate.

    Args:
        F: score of every image for every class, of the global batch.
        labels: class of every image.
        alpha: class offsets, to which the generative loss is blind: the classifier that an
            earlier generative stage has left is F + alpha.
        share: of the discriminative loss, between 0 and 1.
    """
    if share == 0:
        return generative_loss(F, labels)
    discriminative = discriminative_loss(F + alpha[None, :], labels)
    if share == 1:
        return discriminative
    return (1 - share) * generative_loss(F, labels) + share * discriminative


def _own_scores(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    return jnp.take_along_axis(F, labels[:, None], axis=1)[:, 0]


def importance_ess(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Effective sample size of the generative gradient's weights, averaged over the batch.

        ESS_y = 1 / sum_j W[j,y]^2,  W[j,y] = exp F[j,y] / sum_k exp F[k,y],  mean_i ESS_{y_i}

    Between 1 (one image stands for the whole reference) and n.

    Args:
        F: score of every image for every class, of the global batch.
        labels: class of every image.
    """
    log_ess = 2 * jax.nn.logsumexp(F, axis=0) - jax.nn.logsumexp(2 * F, axis=0)
    return jnp.mean(jnp.exp(log_ess)[labels])


class LogMeanExp(NamedTuple):
    """A running log-mean-exp of each class's scores, without overflow: log Z_y so far."""

    log_sum: Float[Array, " c"]
    images: Float[Array, ""]

    @classmethod
    def zero(cls, classes: int) -> "LogMeanExp":
        """Of no images."""
        return cls(jnp.full(classes, -jnp.inf), jnp.zeros(()))

    def add(self, F: Float[Array, "n c"]) -> "LogMeanExp":
        """With a batch of scores."""
        log_sum = jnp.logaddexp(self.log_sum, jax.nn.logsumexp(F, axis=0))
        return LogMeanExp(log_sum, self.images + F.shape[0])

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
        label_counts: images of every class, from which the priors rho are taken; none is zero.
    """
    prior = np.asarray(label_counts) / np.sum(label_counts)
    return jnp.log(jnp.asarray(prior, jnp.float32)) - log_partition
