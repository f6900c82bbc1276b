"""What the replicas of a tempered run did: how often neighbours were swapped, and who climbed."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from ppl_cnn.inference.diagnostics.scan import loaded, variable
from ppl_cnn.inference.diagnostics.verdict import Findings

RARE = 0.1
"""Neighbours that are swapped less often are hardly one ladder; ours."""


class Climbs(NamedTuple):
    """Of the draws of a tempered run."""

    strengths: Float[np.ndarray, " rung"]
    """b, from 0 to 1."""
    tilts: Float[np.ndarray, " rung"]
    """Mean of f/T."""
    steps: Float[np.ndarray, " rung"]
    """Step sizes in radians; the reference is drawn anew."""
    angles: Float[np.ndarray, " rung"]
    """Of trajectories, in radians."""
    swapped: Float[np.ndarray, " pair"]
    """Mean acceptance probability of a swap with the next rung."""
    arrivals: Int[np.ndarray, " chain"]
    """Replicas that came from the reference to the top."""

    @classmethod
    def of(cls, tree: xr.DataTree) -> "Climbs | None":
        """From a run's draws; None if it isn't of the tempered kernel.

        Raises:
            InputError: the store is damaged.
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

    def findings(self) -> Findings:
        """What that means for the verdict."""
        said = []
        rarest = int(self.swapped.argmin())
        if self.swapped[rarest] < RARE:
            one, other = self.strengths[rarest : rarest + 2]
            said.append(
                f"The replicas at strengths {one:.3g} and {other:.3g} are hardly ever swapped "
                f"({self.swapped[rarest]:.0%}): give the ladder more rungs "
                f"(--kernel tempered:{2 * len(self.swapped)}) or a longer warmup."
            )
        stuck = int((self.arrivals == 0).sum())
        if stuck:
            said.append(
                f"In {stuck} of {len(self.arrivals)} chains no replica has climbed from the "
                f"reference to the density: they know only what is near their starts; draw on, or "
                f"give the ladder more rungs."
            )
        return Findings((), tuple(said), explained=False)


def climbs_html(climbs: Climbs, heading: str) -> str:
    """The page's section on them.

    Args:
        climbs: of a tempered run.
        heading: the tag of its heading.
    """
    swapped = [f"{share:.0%}" for share in climbs.swapped] + [""]
    steps = ["drawn anew"] + [f"{step:.3g}" for step in climbs.steps[1:]]
    angles = [""] + [f"{angle:.3g}" for angle in climbs.angles[1:]]
    columns = (climbs.strengths, climbs.tilts, steps, angles, swapped)
    rows = "\n".join(
        f'<tr><th scope="row" class="number">{rung}</th><td class="number">{strength:.4g}</td>'
        f'<td class="number">{tilt:,.4g}</td><td class="number">{step}</td>'
        f'<td class="number">{angle}</td><td class="number">{share}</td></tr>'
        for rung, (strength, tilt, step, angle, share) in enumerate(zip(*columns, strict=True))
    )
    names = ("rung", "strength", "mean f/T", "step", "angle", "swapped with the next")
    head = "".join(f'<th scope="col" class="number">{name}</th>' for name in names)
    said = " ".join(climbs.findings().shortages)
    arrivals = ", ".join(f"{count:,}" for count in climbs.arrivals)
    return f"""<section>
<{heading}>Replicas</{heading}>
<p>{said} Replicas that came from a draw of the reference to the density, in each chain:
{arrivals}. Each is a chance to find another part of the density.</p>
<details><summary>The ladder</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Ladder"><table class="data">
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div></details>
</section>
"""
