"""What of a unit's layer tilts a density: the score itself, or a log-probability.

The log-probabilities are of the classifier's logits F + alpha. The score is F alone, as alpha_c
changes only the constant Z of p_c.
"""

import enum
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, override

import jax
import numpy as np
from jaxtyping import Array, Float

from ppl_cnn.errors import ArgumentError, UnknownNameError
from ppl_cnn.numeric import plain_fields, real

type Responses = Float[Array, " channel"]
"""The responses of all channels at one place; for the last layer, the logits."""


@dataclass(frozen=True)
class Target(ABC):
    """A function of a layer's responses whose value for a channel is the unit's score.

    `str()` gives the text that `parse_target` reads.
    """

    form: ClassVar[str]
    """How it is written, such as soft-log-prob:TAU."""
    compares_classes: ClassVar[bool] = True
    """Whether it needs the responses of all classes, so that only classes have it."""

    @abstractmethod
    def __call__(self, responses: Responses) -> Responses:
        """The target of each channel, from the responses of all."""

    def __str__(self) -> str:
        return self.form


@dataclass(frozen=True)
class Logit(Target):
    """The score as it is; the only target of filters."""

    form: ClassVar[str] = "logit"
    compares_classes: ClassVar[bool] = False

    @override
    def __call__(self, responses: Responses) -> Responses:
        return responses


@dataclass(frozen=True)
class LogProb(Target):
    """The log-probability log p(y|x), for the density p(y|x)^(1/T) q(x)."""

    form: ClassVar[str] = "log-prob"

    @override
    def __call__(self, responses: Responses) -> Responses:
        return jax.nn.log_softmax(responses)


@dataclass(frozen=True)
class SoftLogProb(Target):
    """The softened log-probability tau log_softmax(logits / tau).

    It is as steep as the score while the class competes with others, and flat once the class has
    outdone all of them by several tau.

    Args:
        tau: positive and finite, in units of the logits. 1 gives `LogProb`; as tau grows, the
            gradient approaches that of the logit less the logits' mean.

    Raises:
        ArgumentError: tau is not positive and finite.
    """

    tau: float
    form: ClassVar[str] = "soft-log-prob:TAU"

    def __post_init__(self) -> None:
        plain_fields(self)
        if not 0 < real("tau", self.tau) < float("inf"):
            raise ArgumentError(
                f"The softness `tau` must be positive and finite, not {self.tau}.", argument="tau"
            )

    @override
    def __call__(self, responses: Responses) -> Responses:
        return self.tau * jax.nn.log_softmax(responses / self.tau)

    @override
    def __str__(self) -> str:
        return f"soft-log-prob:{np.format_float_positional(self.tau, trim='-')}"


TARGETS: dict[str, type[Target]] = {
    kind.form.partition(":")[0]: kind for kind in (Logit, LogProb, SoftLogProb)
}
"""The targets by the name that a text begins with."""


class Auto(enum.Enum):
    """What stands for a target that the network's training decides."""

    AUTO = "auto"


AUTO = Auto.AUTO

type TargetChoice = Target | Auto | str
"""A target, its text, or what leaves it to the network's training."""

_TEXT = re.compile(r"(?P<name>[a-z-]+)(?::(?P<number>\d+\.?\d*))?", re.ASCII)


def parse_target(target: TargetChoice) -> Target | Auto:
    """The target that a text names; a target itself is returned as it is.

    Args:
        target: logit, log-prob, soft-log-prob:TAU with a positive TAU, or auto.

    Raises:
        UnknownNameError: the text names no target.

    Examples:
        >>> parse_target("soft-log-prob:10")
        SoftLogProb(tau=10.0)
        >>> str(SoftLogProb(10.0))
        'soft-log-prob:10'
    """
    if isinstance(target, Target | Auto):
        return target
    if target == AUTO.value:
        return AUTO
    found = _TEXT.fullmatch(target)
    kind = TARGETS.get(found["name"]) if found else None
    if found and kind:
        numbers = [] if found["number"] is None else [float(found["number"])]
        if len(numbers) == kind.form.count(":") and min(numbers, default=1.0) > 0:
            return kind(*numbers)
    forms = [AUTO.value, *(each.form for each in TARGETS.values())]
    raise UnknownNameError(
        f"Unknown target {target!r}. Write {', '.join(forms[:-1])} or {forms[-1]} with a positive "
        f"TAU, for example soft-log-prob:10.",
        name=target,
        known=forms,
    )


def settled(target: Target | Auto, *, suited: Target, is_class: bool) -> Target:
    """The target of a unit, with auto decided.

    Args:
        target: the target that was asked for.
        suited: what auto stands for with classes.
        is_class: whether the unit is a class; auto scores filters as they are.
    """
    if target is AUTO:
        return suited if is_class else Logit()
    return target
