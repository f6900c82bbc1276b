"""The replicas of a tempered run: how often neighbours swap, and which climb to the density."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from ppl_cnn.inference.diagnostics.scan import loaded, variable
from ppl_cnn.inference.diagnostics.thresholds import SWAPPED_RARELY
from ppl_cnn.inference.diagnostics.verdict.sentences import Finding, NoClimbs, RareSwaps


class Climbs(NamedTuple):
    """What the replicas of a tempered run did, rung by rung from the reference to the density."""

    strengths: Float[np.ndarray, " rung"]
    """The strength b of each rung, from 0 (the reference) to 1 (the density)."""
    tilts: Float[np.ndarray, " rung"]
    """The mean of f/T on each rung."""
    steps: Float[np.ndarray, " rung"]
    """The step size of each rung, in radians; unused on the reference, which is drawn anew."""
    angles: Float[np.ndarray, " rung"]
    """The angle of each rung's trajectories, in radians."""
    swapped: Float[np.ndarray, " pair"]
    """Mean acceptance probability of each rung's swap with the next."""
    arrivals: Int[np.ndarray, " chain"]
    """How many replicas climbed from the reference to the density, in each chain."""

    @classmethod
    def of(cls, tree: xr.DataTree) -> "Climbs | None":
        """Reads them from a run's draws.

        Args:
            tree: the draws, as `read` or `ppl_cnn.draw` returns them.

        Returns:
            None if the run's kernel isn't the tempered one.

        Raises:
            FileError: a chunk of the store is damaged.
        """
        if "tempering" not in tree.children:
            return None
        tilts = loaded(variable(tree, "tempering/tilt"))
        strengths, steps, angles = (
            loaded(variable(tree, f"tempering/{name}").isel(block=-1))
            for name in ("strength", "step_size", "angle")
        )
        tilts = tilts.astype(np.float64)
        with np.errstate(invalid="ignore"):
            change = np.diff(strengths) * (tilts[..., :-1] - tilts[..., 1:])
        # A replica whose tilt isn't finite is never swapped.
        swapped = np.nan_to_num(np.exp(np.minimum(change, 0.0)), nan=0.0).mean(axis=(0, 1))
        arrivals = loaded(variable(tree, "sample_stats/restarts"))
        means = tilts.mean(axis=(0, 1))
        total = arrivals.sum(axis=1).astype(np.int64)
        return cls(strengths, means, steps, angles, swapped, total)

    def findings(self) -> tuple[Finding, ...]:
        """What speaks against the ladder: rare swaps, and chains that no replica has reached."""
        found: list[Finding] = []
        rarest = int(self.swapped.argmin())
        if self.swapped[rarest] < SWAPPED_RARELY:
            one, other = self.strengths[rarest : rarest + 2]
            pair, share = (float(one), float(other)), float(self.swapped[rarest])
            found.append(RareSwaps(pair, share, len(self.swapped)))
        idle = int((self.arrivals == 0).sum())
        if idle:
            found.append(NoClimbs(idle, len(self.arrivals)))
        return tuple(found)
