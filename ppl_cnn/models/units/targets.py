"""What of a unit's layer a density is tilted by: the score itself, or a log-probability.

The logits of the log-probabilities are the classifier's, F + alpha; the score is F alone, as
alpha_c only scales p_c's constant Z.
"""

import re
from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from ppl_cnn.errors import InputError

type Responses = Float[Array, " channel"]
"""Of all channels at one place; for the last layer, the logits."""


def logit(responses: Responses) -> Responses:
    """The scores as they are."""
    return responses


def log_prob(logits: Responses) -> Responses:
    """log p(y|x), for the density p(y|x)^(1/T) q(x)."""
    return jax.nn.log_softmax(logits)


def soft_log_prob(tau: float) -> Callable[[Responses], Responses]:
    """tau log_softmax(logits / tau): as steep as the score while the class competes with others,
    and flat once it has outdone all of them by several tau.

    Args:
        tau: in units of the logits; 1 is `log_prob`, and infinity the logit less their mean.
    """

    def target(logits: Responses) -> Responses:
        return tau * jax.nn.log_softmax(logits / tau)

    return target


def parse_target(text: str) -> Callable[[Responses], Responses]:
    """The target that a text names: logit, log-prob or soft-log-prob:TAU.

    Raises:
        InputError: there is no such target.
    """
    if text == "logit":
        return logit
    if text == "log-prob":
        return log_prob
    number = re.fullmatch(r"soft-log-prob:(\d+\.?\d*)", text)
    if number and float(number[1]) > 0:
        return soft_log_prob(float(number[1]))
    raise InputError(
        f"{text!r} is no target: write logit, log-prob, or soft-log-prob:TAU with a positive TAU, "
        f"for example soft-log-prob:10."
    )


def needs_classes(text: str) -> bool:
    """Whether the target is of classes alone: it compares a score with all the others."""
    return parse_target(text) is not logit
