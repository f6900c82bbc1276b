"""A call of a run's program: where it leads, what it has drawn, and what the host is told."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from ppl_cnn.inference.sampling.state import Kept, Position


class Told(NamedTuple):
    """What a call tells the host at once: few numbers, as each read waits for the device."""

    steps: Array
    """(chain,): gradients that each has taken."""
    acceptance: Array
    """(chain,): mean acceptance probability."""


@dataclass(frozen=True)
class Call:
    """A call of the program, which may still be running."""

    position: Position
    """Where the run stands after it; gradients and seconds are those before it."""
    kept: Kept
    """The block that it has filled up to here."""
    told: Told
    transitions: int
    """Transitions of each chain."""
    closes: bool
    """Whether the block is whole then, so that it has to be written."""
    begun: float
    """When the program was called, on the monotonic clock."""


def wait_for(arrays: Any) -> None:
    """Waits until arrays are there. Ctrl-C and SIGTERM get through, as they don't inside JAX.

    Args:
        arrays: a tree of them.
    """
    begun = time.monotonic()
    while not all(leaf.is_ready() for leaf in jax.tree.leaves(arrays)):
        time.sleep(min(0.002, (time.monotonic() - begun) / 50))
    jax.block_until_ready(arrays)
