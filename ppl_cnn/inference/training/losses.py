"""Losses of the score matrix F (image, class), their bound, the weights' ESS, and alpha.

All losses are functions of the whole batch's F. The generative loss normalises down a column, over
images, so F must hold the global batch: under `jax.jit` with a sharded batch axis it does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

LEAST_COUNT = 0.5
"""Number of images that a class without any counts as."""


class Bank(NamedTuple):
    """The last k rows of F, with weights that fade: a larger sample of the reference.

    The rows are constants from earlier steps. Gain: Z is estimated from more images than fit a
    step, and the bound of the loss falls (`generative_bound`). Bias: log Z of `generative_loss`
    lags behind the network by the rows' mean age, most where the rate is high and where all scores
    of a class move together; fading bounds that lag. Since F is compared with fixed rows, the loss
    is no longer blind to a constant added to a column: it pulls the column to where it was lately.
    """

    scores: Float[Array, "k c"]
    """Rows of earlier score matrices, the latest first."""
    log_weight: Float[Array, " k"]
    """Log of each row's weight in the sum, where a row of F has 1; -inf for an empty row."""

    @classmethod
    def empty(cls, size: int, classes: int) -> "Bank":
        """A bank with room for `size` rows, all empty.

        Args:
            size: number of rows.
            classes: number of columns.
        """
        return cls(jnp.zeros((size, classes)), jnp.full(size, -jnp.inf))

    def push(self, F: Float[Array, "n c"], decay: float) -> "Bank":
        """The bank a step later, with the rows of F in place of the oldest ones.

        Args:
            F: score matrix of the step; its rows enter with weight `decay`.
            decay: factor of every weight for a step of age, in (0, 1].
        """
        size = len(self.log_weight)
        log_weight = jnp.concatenate([jnp.zeros(len(F)), self.log_weight]) + jnp.log(decay)
        return Bank(jnp.concatenate([F, self.scores])[:size], log_weight[:size])


def generative_loss(
    F: Float[Array, "n c"], labels: Int[Array, " n"], bank: Bank | None = None
) -> Float[Array, ""]:
    """Negative log-likelihood ratio of the images under their class's density, importance-sampled.

        L = -mean_i [ F[i,y_i] - log( 1/n sum_j exp F[j,y_i] ) ]        softmax down a column

    The gradient is that of -mean_i log p_{y_i}(x_i)/q(x_i), with the batch standing for the
    reference q: E_{p_y}[grad f_y] becomes a mean over the batch with the self-normalised
    weights W_j = softmax_j F[j,y]. L is at least minus the entropy of the batch's labels
    (`generative_bound`), where only the class's own images carry weight (`separated_ess`). A
    constant added to a column changes nothing: the last bias gets a gradient of zero, and alpha
    (`class_offsets`) must replace it afterwards.

    With a bank, Z_y is the weighted mean of exp F over batch and bank, and the gradient of log Z_y
    is 1/n sum_j exp F[j,y]/Z_y grad F[j,y], over the batch alone: importance sampling with weights
    whose sum is n on average instead of always.

    Args:
        F: score of every image for every class, for the global batch.
        labels: class of every image.
        bank: score rows of earlier steps; None for the batch alone.

    Returns:
        The loss in nats, a mean over the batch.

    Source: Dai, Lu, Wu, Generative modeling of convolutional neural networks, ICLR 2015,
    arXiv 1412.6296.
    """
    log_Z = jax.nn.logsumexp(F, axis=0) - jnp.log(F.shape[0])
    if bank is not None:
        log_Z = _with_bank(F, bank)
    return jnp.mean(_of_labels(log_Z, labels) - _own_scores(F, labels))


def generative_bound(
    labels: Int[Array, " n"], classes: int, bank: Bank | None = None
) -> Float[Array, ""]:
    """The tight lower bound of the generative loss, over all score matrices with these labels.

        L >= -H - log(1 + s/n),   H = -sum_y n_y/n log(n_y/n)

    for n_y images of class y, and s = the sum of the bank's weights (0 without a bank).

    Proof. Let W_i = exp F[i,y_i] / ((n + s) Z_y) be image i's share of its column's sum over batch
    and bank, so that L = -mean_i log((n + s) W_i). The n_y images of class y have at most the whole
    sum, sum_i W_i <= 1, so that by Jensen's inequality their mean of log((n + s) W_i) is at most
    log((n + s)/n_y). The mean over the classes, with weights n_y/n, is H + log((n + s)/n).
    Equality, in the limit: F[j,y] = c for the images of class y and -c for all others, c -> inf.

    Args:
        labels: class of every image of the global batch.
        classes: number of classes.
        bank: score rows of earlier steps; None for the batch alone.

    Returns:
        The bound in nats: at least -log n without a bank, and that only if no two images of the
        batch have the same class.
    """
    n = labels.shape[0]
    share = counts_of(labels, classes) / n
    bound = jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1.0)))
    if bank is None:
        return bound
    return bound - jnp.log1p(jnp.sum(jnp.exp(bank.log_weight)) / n)


def _with_bank(F: Float[Array, "n c"], bank: Bank) -> Float[Array, " c"]:
    """log Z over batch and bank, whose gradient is over the batch alone."""
    rows = jnp.concatenate([F, bank.scores + bank.log_weight[:, None]])
    images = F.shape[0] + jnp.sum(jnp.exp(bank.log_weight))
    log_Z = jax.lax.stop_gradient(jax.nn.logsumexp(rows, axis=0) - jnp.log(images))
    # What is added below has the value 0 and the gradient of log Z.
    mean_weight = jnp.mean(jnp.exp(F - log_Z[None, :]), axis=0)
    return log_Z + mean_weight - jax.lax.stop_gradient(mean_weight)


def discriminative_loss(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Cross-entropy of the classifier with logits F.

        L = -mean_i [ F[i,y_i] - log sum_c exp F[i,c] ]                 softmax along a row

    Args:
        F: logit of every image for every class.
        labels: class of every image.

    Returns:
        The loss in nats, a mean over the batch.
    """
    return jnp.mean(jax.nn.logsumexp(F, axis=1) - _own_scores(F, labels))


def hybrid_loss(
    F: Float[Array, "n c"],
    labels: Int[Array, " n"],
    *,
    alpha: Float[Array, " c"],
    share: float,
    bank: Bank | None = None,
) -> Float[Array, ""]:
    """The weighted mean of both losses; one of them alone where the share is 0 or 1.

        L = (1 - share) * generative(F) + share * discriminative(F + alpha)

    The weights add up to one, so that a learning rate means the same as for either loss alone. The
    plain sum of both losses is share = 1/2 at twice the rate. With a bank, the sum is that of HDGE
    (Liu, Abbeel, Hybrid discriminative-generative training via contrastive learning, 2020, arXiv
    2007.09070).

    Args:
        F: score of every image for every class, for the global batch.
        labels: class of every image.
        alpha: class offsets: after a generative stage, which is blind to them, the classifier is
            F + alpha.
        share: weight of the discriminative loss, between 0 and 1.
        bank: score rows of earlier steps, for the generative loss.

    Returns:
        The loss in nats, a mean over the batch.
    """
    if share == 0:
        return generative_loss(F, labels, bank)
    discriminative = discriminative_loss(F + alpha[None, :], labels)
    if share == 1:
        return discriminative
    return (1 - share) * generative_loss(F, labels, bank) + share * discriminative


def _own_scores(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """F[i, labels[i]] for each i."""

    def gathered(F: Array) -> Array:
        return jnp.take_along_axis(F, labels[:, None], axis=1)[:, 0]

    def summed(F: Array) -> Array:
        own = labels[:, None] == jnp.arange(F.shape[1])[None, :]
        return jnp.where(own, F, 0.0).sum(axis=1)

    # The gradient of the first is a scatter, which a GPU adds up in an order of its own.
    scores: Array = jax.lax.platform_dependent(F, cpu=gathered, default=summed)
    return scores


def _of_labels(values: Float[Array, " c"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """values[labels[i]] for each i."""
    return _own_scores(jnp.broadcast_to(values[None, :], (len(labels), len(values))), labels)


def class_ess(F: Float[Array, "n c"]) -> Float[Array, " c"]:
    """Effective sample size (ESS) of the generative gradient's weights, for every class.

        ESS_y = 1 / sum_j W[j,y]^2,  W[j,y] = exp F[j,y] / sum_k exp F[k,y]

    It lies between 1 (one image stands for the whole reference) and n, also for a class without an
    image in the batch: the reference is the whole batch.

    Args:
        F: score of every image for every class, for the global batch.

    Returns:
        The ESS of each class, in images.
    """
    return jnp.exp(2 * jax.nn.logsumexp(F, axis=0) - jax.nn.logsumexp(2 * F, axis=0))


def importance_ess(F: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Mean over the batch of the ESS of each image's class (`class_ess`): mean_i ESS_{y_i}.

    Args:
        F: score of every image for every class, for the global batch.
        labels: class of every image.

    Returns:
        The mean ESS, in images.
    """
    return jnp.mean(class_ess(F)[labels])


def separated_ess(labels: Int[Array, " n"], classes: int) -> Float[Array, ""]:
    """What separation leaves of the ESS: `importance_ess` where the generative loss is least.

        sum_y n_y^2 / n

    There the n_y images of a class share the weight of their column evenly, so that ESS_y = n_y,
    which n_y of the n images see. It is about n/C for C even classes, and 1 for n << C.

    Args:
        labels: class of every image of the global batch.
        classes: number of classes.

    Returns:
        The mean ESS, in images.
    """
    return jnp.sum(counts_of(labels, classes) ** 2) / labels.shape[0]


def counts_of(labels: Int[Array, " n"], classes: int) -> Float[Array, " class"]:
    """The number of images of each class. `jnp.bincount` would be a scatter on a GPU.

    Args:
        labels: class of every image.
        classes: number of classes.
    """
    return jax.nn.one_hot(labels, classes).sum(axis=0)


class LogMeanExp(NamedTuple):
    """A running log-mean-exp of each class's scores, without overflow: log Z_y so far."""

    log_sum: Float[Array, " c"]
    """log sum_j exp F[j,y] over the images so far."""
    images: Float[Array, ""]
    """Number of images so far."""

    @classmethod
    def zero(cls, classes: int) -> "LogMeanExp":
        """The start, before any image."""
        return cls(jnp.full(classes, -jnp.inf), jnp.zeros(()))

    def add(self, F: Float[Array, "n c"], valid: Bool[Array, " n"] | None = None) -> "LogMeanExp":
        """The log-mean-exp with a batch of scores added.

        Args:
            F: score of every image for every class.
            valid: which rows to add; None for all.
        """
        rows = jnp.ones(F.shape[0], bool) if valid is None else valid
        batch = jax.nn.logsumexp(F, axis=0, where=rows[:, None])
        return LogMeanExp(
            jnp.logaddexp(self.log_sum, batch), self.images + jnp.sum(rows, dtype=jnp.float32)
        )

    def value(self) -> Float[Array, " c"]:
        """log( 1/n sum_j exp F[j,y] ) for every class y: estimates log Z_y with q = the data."""
        return self.log_sum - jnp.log(self.images)


def class_offsets(
    log_partition: Float[Array, " c"], label_counts: Int[np.ndarray, " c"]
) -> Float[Array, " c"]:
    """The class offsets alpha_y = log rho_y - log Z_y, which make F + alpha the logits of p(y|x).

    By Bayes, p(y|x) ∝ rho_y p_y(x) = rho_y exp(F_y(x)) q(x) / Z_y.

    Args:
        log_partition: log Z_y of every class.
        label_counts: number of images of every class; the class priors rho are their shares. A
            class without an image counts as `LEAST_COUNT` images, so that its offset is finite.
    """
    counts = np.maximum(label_counts, LEAST_COUNT)
    prior = counts / np.sum(counts)
    return jnp.log(jnp.asarray(prior, jnp.float32)) - log_partition
