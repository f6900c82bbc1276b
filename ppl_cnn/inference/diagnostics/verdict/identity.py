"""The finding that draws don't obey Stein's identity."""

from dataclasses import dataclass

from ppl_cnn.inference.diagnostics.stein import SteinCheck
from ppl_cnn.inference.diagnostics.verdict.sentences import Finding


@dataclass(frozen=True)
class SteinDiffers(Finding):
    """Mean and Stein mean differ by more than chance, although nothing else speaks against."""

    severity = "bad"
    difference: float
    """Root mean square over the pixels, in grey levels."""
    chance: float
    """What chance alone would give."""

    def _said(self) -> str:
        return (
            f"The mean and the Stein mean differ by {self.difference:.2g} grey levels, and chance "
            f"would give {self.chance:.2g}: the draws don't obey Stein's identity, though the "
            f"chains agree. Draw more with a longer `warmup`; if they still differ, the response's "
            f"gradient isn't that of the response."
        )


def broken_identity(check: SteinCheck) -> list[Finding]:
    """The finding, if mean and Stein mean differ by more than chance."""
    if not check.ratio > check.largest:
        return []
    return [SteinDiffers(check.difference, check.chance)]
