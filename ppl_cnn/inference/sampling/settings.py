"""How a density is sampled: what, beside it, determines the draws."""

from dataclasses import dataclass

from ppl_cnn.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """What, beside the density, determines the draws."""

    kernel: str = "split"
    chains: int = 8
    warmup: int = 200
    """Transitions in which the step size is adapted, not kept."""
    thin: int = 1
    """Transitions per kept draw."""
    target_accept: float = 0.8
    seed: int = 0
    init: str = "prior"
    """Where chains start, for the record; see `ppl_cnn.inference.sampling.starts`."""

    def __post_init__(self) -> None:
        for name in ("chains", "warmup", "thin"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 < self.target_accept < 1:
            raise InputError(
                f"The target acceptance must be between 0 and 1, not {self.target_accept}."
            )
        if not 0 <= self.seed < 2**63:
            raise InputError(f"The seed must be a non-negative integer, not {self.seed}.")
