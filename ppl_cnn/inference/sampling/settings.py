"""The settings of a run: everything beside the densities that determines the draws."""

from dataclasses import dataclass, field
from typing import Any

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels.kernel import Kernel
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.inference.sampling.starts.drawn import Prior
from ppl_cnn.inference.sampling.starts.start import Start
from ppl_cnn.numeric import plain_fields, whole


@dataclass(frozen=True)
class Sampling:
    """How each density of a run is sampled.

    Args:
        kernel: the transition kernel, for example `Split()` or `Tempered(rungs=4)`.
        chains: number of chains of each density.
        warmup: transitions at the start that adapt the kernel and are not kept.
        thin: transitions per kept draw.
        target_accept: mean acceptance probability that the step size is adapted to; by default the
            kernel's.
        seed: the same seed gives the same bits.
        start: where chains start; by default each at its own draw of the reference.

    Raises:
        ArgumentError: a setting is out of range.
    """

    kernel: Kernel = field(default_factory=Split)
    chains: int = 8
    warmup: int = 200
    thin: int = 1
    target_accept: float | None = None
    seed: int = 0
    start: Start = field(default_factory=Prior)

    def __post_init__(self) -> None:
        plain_fields(self)
        for name in ("chains", "warmup", "thin"):
            check_count(name, getattr(self, name))
        self.kernel.checked_acceptance("target_accept", self.acceptance)
        check_seed(self.seed)
        self.start.check(self.chains)

    @property
    def acceptance(self) -> float:
        """The mean acceptance probability that is aimed at."""
        given = self.target_accept
        return self.kernel.target_accept_prob if given is None else given

    def record(self) -> dict[str, Any]:
        """The settings as the run's record has them; equal records give equal draws."""
        return {
            "kernel": str(self.kernel),
            **({} if self.kernel.is_exact else {"approximate": True}),
            "chains": self.chains,
            "warmup": self.warmup,
            "thin": self.thin,
            "target_accept": self.acceptance,
            "seed": self.seed,
            "init": str(self.start),
        }


def check_count(name: str, value: int) -> None:
    """Refuses what is no whole number, a count below 1, or one that no compiled loop counts to.

    Raises:
        ArgumentError: with the argument's name.
    """
    if whole(name, value) < 1:
        raise ArgumentError(f"`{name}` must be at least 1, not {value}.", argument=name)
    if value >= 2**31:
        raise ArgumentError(f"`{name}` must be below 2^31, not {value}.", argument=name)


def check_seed(seed: int) -> None:
    """Refuses a seed that JAX doesn't take.

    Raises:
        ArgumentError: it is no whole number, negative, or too large.
    """
    if not 0 <= whole("seed", seed) < 2**63:
        raise ArgumentError(
            f"`seed` must be at least 0 and below 2^63, not {seed}.", argument="seed"
        )
