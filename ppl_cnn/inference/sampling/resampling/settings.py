"""Importance resampling as a method of sampling: its text and its settings."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.sampling.settings import check_count, check_seed
from ppl_cnn.numeric import plain_fields

PROPOSALS = 10_000
"""Draws of the reference, unless a number is given."""
MOST_PROPOSALS = 2**31 - 1


@dataclass(frozen=True)
class Resample:
    """Independent draws of q, drawn again by their weights exp(f/T): no chain, no gradient.

    It is exact as the number of proposals grows, and costs that many forward passes whatever the
    number of draws. It serves where the tilt is mild: the number of proposals that it needs grows
    exponentially with the divergence of p from q.

    Args:
        proposals: draws of the reference. Under a data set, they are its images, all of them.

    Raises:
        ArgumentError: there are fewer than 2, or more than 2^31 - 1.

    Source: Rubin, The calculation of posterior distributions by data augmentation: comment (the
    SIR algorithm), JASA 82, 1987. Chatterjee, Diaconis, The sample size required in importance
    sampling, Ann. Appl. Probab. 28, 2018.

    Examples:
        >>> str(Resample.parse("500")), str(Resample())
        ('resample:500', 'resample')
    """

    name: ClassVar = "resample"
    proposals: int = PROPOSALS

    def __post_init__(self) -> None:
        plain_fields(self)
        if not 2 <= self.proposals <= MOST_PROPOSALS:
            raise ArgumentError(
                f"`kernel=resample` needs 2 to {MOST_PROPOSALS} draws of the reference, not "
                f"{self.proposals}.",
                argument="kernel",
            )

    @classmethod
    def parse(cls, value: str) -> Self:
        """The method that the text resample:VALUE stands for.

        Raises:
            ArgumentError: the value is no number of proposals.
        """
        if not (value.isascii() and value.isdigit()):
            raise ArgumentError(
                f"Kernel 'resample' takes a number of draws of the reference, but "
                f"{'resample:' + value!r} was given.",
                argument="kernel",
            )
        return cls(int(value))

    def __str__(self) -> str:
        return self.name if self.proposals == PROPOSALS else f"{self.name}:{self.proposals}"


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """The settings of a run by importance resampling.

    Args:
        kernel: the method, with its number of proposals.
        chains: rows of independent draws of each density.
        seed: the same seed gives the same bits.

    Raises:
        ArgumentError: a setting is out of range.
    """

    kernel: Resample = field(default_factory=Resample)
    chains: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        plain_fields(self)
        check_count("chains", self.chains)
        check_seed(self.seed)

    def record(self) -> dict[str, Any]:
        """The settings as the run's record has them; equal records give equal draws."""
        return {"kernel": str(self.kernel), "chains": self.chains, "seed": self.seed}
