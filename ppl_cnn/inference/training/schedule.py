"""The learning rate within a stage. Heavy imports wait, for the command line's sake."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optax

RISE = 50
"""The rate rises linearly from zero over the first 1/50 of a stage's steps, so that large early
gradients don't throw the weights about (gradual warm-up: Goyal et al., Accurate, large minibatch
SGD, 2017, arXiv 1706.02677; the share is our choice)."""


def learning_rate(schedule: str, *, peak: float, steps: int) -> "optax.Schedule":
    """The learning rate as a function of the step within a stage, counted from 0.

        rate(t) = peak * t / r                 for t < r = max(1, steps // RISE)
        rate(t) = SCHEDULES[schedule](t - r)   afterwards

    Args:
        schedule: a name in `SCHEDULES`.
        peak: the rate at the end of the rise.
        steps: the stage's length in updates.
    """
    import optax

    rise = max(1, steps // RISE)
    then = SCHEDULES[schedule](peak, max(1, steps - rise))
    return optax.join_schedules([optax.linear_schedule(0.0, peak, rise), then], [rise])


def _cosine(peak: float, steps: int) -> "optax.Schedule":
    """peak * (1 + cos(pi t / steps)) / 2: from the peak to zero (arXiv 1608.03983)."""
    import optax

    return optax.cosine_decay_schedule(peak, steps)


def _constant(peak: float, steps: int) -> "optax.Schedule":
    """The peak, at every step."""
    import optax

    return optax.constant_schedule(peak)


SCHEDULES: Mapping[str, Callable[[float, int], "optax.Schedule"]] = {
    "cosine": _cosine,
    "constant": _constant,
}
"""Name -> (peak, steps after the rise) -> schedule after the rise."""
