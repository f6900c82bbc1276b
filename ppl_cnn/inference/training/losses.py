"""Losses of the score matrix F (image, class), and what generative training needs besides.

All of them are functions of the whole batch's F. The generative ones normalise down a column,
over images, so F must hold the global batch: under `jax.jit` with a sharded batch axis it does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Bank(NamedTuple):
    """The last K rows of F, with weights that fade: a wider stand-in for the reference.

    The rows are constants, of older weights than F's. What that biases: log Z of `generative_loss`
    then lags behind the network by the rows' mean age, most of all where the rate is high and
    along directions in which all scores of a class move together. Fading, by a factor a step,
    bounds that lag. As F's own images are compared with fixed rows, the loss is no longer blind
    to a constant added to a column, which is pulled to where it was lately. The gain: Z is
    estimated from more images than fit a step, and the bound falls to -log(n + sum of weights).
    """

    scores: Float[Array, "k c"]
    log_weight: Float[Array, " k"]
    """-inf where no row is yet."""

    @classmethod
    def empty(cls, size: int, classes: int) -> "Bank":
        """Of no rows, with room for `size`."""
        return cls(jnp.zeros((size, classes)), jnp.full(size, -jnp.inf))

    def push(self, F: Float[Array, "n c"], decay: float) -> "Bank":
        """With the rows of F in place of the oldest ones, a step later.

        Args:
            F: of weight 1 as long as they are a step's own; `decay` once they are in the bank.
            decay: what a step of age multiplies a weight by.
        """
        size = len(self.log_weight)
        log_weight = jnp.concatenate([jnp.zeros(len(F)), self.log_weight]) + jnp.log(decay)
        return Bank(jnp.concatenate([F, self.scores])[:size], log_weight[:size])


def generative_loss(
    F: Float[Array, "n c"], labels: Int[Array, " n"], bank: Bank | None = None
) -> Float[Array, ""]:
    """Importance-sampled negative log likelihood of the images under their class's density.

        L = -mean_i [ F[i,y_i] - log( 1/n sum_j exp F[j,y_i] ) ]        softmax down a column

    The gradient is that of -mean_i log p_{y_i}(x_i)/q(x_i), with the batch standing for the
    reference q: E_{p_y}[grad f_y] becomes a mean over the batch with the self-normalised
    weights W_j = softmax_j F[j,y]. L >= -log n, and near that bound a single image carries all
    the weight (see `importance_ess`). A constant added to a column changes nothing: the last
    bias gets a gradient of zero, and alpha (`class_offsets`) must fill in for it afterwards.

    With a bank, Z_y is its weighted mean of exp F together with the batch's, and the gradient
    of log Z_y is 1/n sum_j exp F[j,y]/Z_y grad F[j,y], over the batch alone: importance sampling
    with weights that sum to n on average instead of always.

    Args:
        F: score of every image for every class, of the global batch.
        labels: class of every image.
        bank: of earlier rows.

    Source: Dai, Lu, Wu, Generative modeling of convolutional neural networks, ICLR 2015,
    arXiv 1412.6296.
    """
    log_Z = jax.nn.logsumexp(F, axis=0) - jnp.log(F.shape[0])
    if bank is not None:
        log_Z = _with_bank(F, bank)
    return jnp.mean(log_Z[labels] - _own_scores(F, labels))


def _with_bank(F: Float[Array, "n c"], bank: Bank) -> Float[Array, " c"]:
    rows = jnp.concatenate([F, bank.scores + bank.log_weight[:, None]])
    images = F.shape[0] + jnp.sum(jnp.exp(bank.log_weight))
    log_Z = jax.lax.stop_gradient(jax.nn.logsumexp(rows, axis=0) - jnp.log(images))
    # Of value 0; it has the gradient.
    mean_weight = jnp.mean(jnp.exp(F - log_Z[None, :]), axis=0)
    return log_Z + mean_weight - jax.lax.stop_gradient(mean_weight)


def discriminative_loss(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Cross entropy of the classifier with logits F.

        L = -mean_i [ F[i,y_i] - log sum_c exp F[i,c] ]                 softmax along a row

    Args:
        F: logits of every image for every class.
        labels: class of every image.
    """
    return jnp.mean(jax.nn.logsumexp(F, axis=1) - _own_scores(F, labels))


def hybrid_loss(
    F: Float[Array, "n c"],
    labels: Int[Array, " n"],
    alpha: Float[Array, " c"],
    share: float,
    bank: Bank | None = None,
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
        bank: of the generative one.
    """
    if share == 0:
        return generative_loss(F, labels, bank)
    discriminative = discriminative_loss(F + alpha[None, :], labels)
    if share == 1:
        return discriminative
    return (1 - share) * generative_loss(F, labels, bank) + share * discriminative


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
        return LogMeanExp(
            jnp.logaddexp(self.log_sum, batch), self.images + jnp.sum(rows, dtype=jnp.float32)
        )

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
