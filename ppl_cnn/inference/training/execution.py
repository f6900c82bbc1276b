"""How a recipe is executed: how often it saves and tests, and how it uses the devices.

Free of heavy imports, for the command line's sake.
"""

from dataclasses import dataclass
from pathlib import Path

from ppl_cnn.errors import ArgumentError
from ppl_cnn.numeric import plain_fields


@dataclass(kw_only=True, frozen=True)
class Execution:
    """How a recipe is executed.

    No field changes the trained weights, except that `accumulate` and `shard_params` change
    their rounding. A run may be resumed with another execution. In a module of your own,
    `accumulate` also changes what dropout drops and what BatchNorm normalises by: each group has
    its own.

    Raises:
        ArgumentError: a value is out of its range.

    Examples:
        >>> Execution(accumulate=4).checkpoint_every
        200
    """

    checkpoint_every: int = 200
    """Steps between two checkpoints, at least 1: the most work that a kill can cost."""
    checkpoint_seconds: float = 0.0
    """Seconds between two checkpoints at least, for steps so short that checkpoints would take more
    time than they; a kill then costs that much."""
    evaluate_every: int = 1
    """Epochs between two tests within a stage; 0 tests at the stage's end only."""
    keep: int = 2
    """Number of latest checkpoints to keep, at least 1. The checkpoint with the lowest test error
    is kept too; model.json names it."""
    accumulate: int = 1
    """Number of groups into which each device's part of a batch is cut, to save memory: the
    groups pass through the network in turn, first for the scores, then for the gradient. The
    gradient is still the whole batch's, for every objective. With 16 groups a batch of 4,096 needs
    the memory of 256, for a third more multiplications."""
    readers: int | None = None
    """Processes that read and decode images, each with 8 threads; 0 reads in threads of the
    training's own process. By default one for each 8 cores, for photographs and from 16 cores on;
    they take shared memory for a few batches each. The batches are the same."""
    shard_params: bool = False
    """Shards weights and momentum over the devices instead of replicating them."""
    deterministic: bool = False
    """On a GPU, compute to the same bits at each run, which takes longer; CPUs do so in any case.
    Compiled programs are kept in the run's folder."""
    data_dir: str | Path | None = None
    """Folder of the prepared data sets; by default TFDS's own."""

    def __post_init__(self) -> None:
        plain_fields(self)
        for name, least in (
            ("checkpoint_every", 1),
            ("checkpoint_seconds", 0),
            ("evaluate_every", 0),
            ("keep", 1),
            ("accumulate", 1),
            ("readers", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ArgumentError(
                    f"`{name}` must be at least {least}, not {value}.", argument=name
                )
