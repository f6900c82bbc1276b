"""The page's tables: starts and drifts, two sides, replicas, and the summary of all quantities."""

import math
from html import escape

import pandas as pd

from ppl_cnn.inference.diagnostics.mixing.mixing import Mixing
from ppl_cnn.inference.diagnostics.mixing.two_sides import Sides
from ppl_cnn.inference.diagnostics.replicas import Climbs
from ppl_cnn.inference.diagnostics.summary import Extreme
from ppl_cnn.inference.diagnostics.thresholds import NEAR, RHAT_POOR
from ppl_cnn.inference.diagnostics.verdict.rule import RHAT, SIDES, Figure
from ppl_cnn.inference.report.parts.verdict import marked_html

_FROM = {
    "rto": "optima",
    "anneal": "annealed particles",
    "resample": "resampled draws of the reference",
    "zero": "the mean image",
    "image": "photographs",
    "images": "given images",
    "run": "draws of another run",
}
"""Kind of start, as a run's record has it -> where the chains of the second side start."""
_SIDES = {
    "agree": "agree: their draws no longer depend on their starts.",
    "apart": "disagree: their draws still depend on their starts. Draw more, or raise the "
    "temperature.",
    "unclear": "differ by no more than chance, but there are too few draws to tell. Draw more.",
}
"""`Sides.state` -> what it means."""


def mixing_html(mixing: Mixing, sides: Sides | None, heading: str) -> str:
    """The table of mixing within and across starts.

    Args:
        mixing: `Diagnosis.mixing`.
        sides: `Diagnosis.sides`.
        heading: the tag of its heading.
    """
    halves = f"above {RHAT_POOR} they differ, unless by chance"
    rows = [Figure("R-hat of a chain's halves, largest", _rhat(mixing.within), halves, None)]
    if mixing.chains > 1:
        state = RHAT.state(mixing.across.value)
        rows.append(Figure("R-hat over chains, largest", _rhat(mixing.across), str(RHAT), state))
    if sides is not None:
        state = SIDES.state(sides.rhat.value)
        rows.append(
            Figure("R-hat over the two sides, largest", _rhat(sides.rhat), str(SIDES), state)
        )
    for when, found in (("first", mixing.begin), ("last", mixing.end)):
        if found is not None:
            said = f"{found.own:z.2f} with their own, {found.others:z.2f} with others'"
            note = f"a difference up to {NEAR}, or by chance, is good"
            name = f"Correlation of the {when} draws with starts"
            rows.append(Figure(name, said, note, mixing.state if when == "last" else None))
    if mixing.unmoved:
        which = ", ".join(map(str, mixing.unmoved))
        note = "the last image of a chain is nearly its first"
        rows.append(Figure("Start, hardly moved", f"chain {which}", note, "bad"))
    for each in mixing.trends:
        if math.isfinite(each.errors):
            said = f"{each.errors:+z.1f} over all, {each.worst.value:+z.1f} in {each.worst.of}"
            note = "in Monte Carlo errors; 3 or 4 and more is a drift, bad over all, short in one"
            rows.append(Figure(f"Second half − first half, {each.of}", said, note, each.state))
    body = "\n".join(map(_row, rows))
    return f"""<section>
<{heading}>Within and across starts</{heading}>
<p>Draws may mix within each chain while the chains stay near their starts. Only chains that agree
with each other and have forgotten their starts sample the density.</p>
<div class="scroll"><table class="data"><tbody>
{body}
</tbody></table></div>
</section>
"""


def _row(figure: Figure) -> str:
    value = marked_html(figure)
    return (
        f'<tr><th scope="row">{figure.name}</th><td>{value}</td><td>{escape(figure.note)}</td></tr>'
    )


def _rhat(worst: Extreme) -> str:
    return "–" if math.isnan(worst.value) else f"{RHAT.written(worst.value, 3)} ({worst.of})"


def sides_html(sides: Sides, heading: str, other: str = "rto") -> str:
    """The section on the two sides of chains.

    Args:
        sides: `Diagnosis.sides`.
        heading: the tag of its heading.
        other: the name of the start of the chains that did not start at the reference.
    """
    names = ("from draws of the reference", f"from {_FROM.get(other, other)}")
    rows = "\n".join(
        f'<tr><th scope="row">{name}</th><td>{mean:,.4g} ± {error:.2g}</td>'
        f"<td>{change:+,.3g}</td></tr>"
        for name, mean, error, change in zip(
            names, sides.response, sides.error, sides.halves, strict=True
        )
    )
    return f"""<section>
<{heading}>Two sides</{heading}>
<p>The chains {names[0]} and those {names[1]} {_SIDES[sides.state]} The largest R-hat of one side
against the other, over response and 50 projections, is {sides.rhat.value:.3f} ({sides.rhat.of}); at
most {RHAT_POOR} is good.</p>
<table class="data"><thead><tr><th scope="col">chains</th><th scope="col">mean response</th>\
<th scope="col">second half − first half</th></tr></thead><tbody>
{rows}
</tbody></table>
</section>
"""


def climbs_html(climbs: Climbs, findings: str, heading: str) -> str:
    """The section on the replicas of a tempered run.

    Args:
        climbs: `Diagnosis.climbs`.
        findings: HTML: what speaks against the ladder, in sentences; empty if nothing does.
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
    arrivals = ", ".join(f"{count:,}" for count in climbs.arrivals)
    return f"""<section>
<{heading}>Replicas</{heading}>
<p>{findings} Replicas that climbed from a draw of the reference to the density, in each chain:
{arrivals}. Each climb is a chance to find another part of the density.</p>
<details><summary>The ladder</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Ladder"><table class="data">
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div></details>
</section>
"""


def summary_html(table: pd.DataFrame) -> str:
    """The table of all quantities, closed at first.

    Args:
        table: `Diagnosis.summary`.
    """
    columns = {
        "mean": ",.2f",
        "sd": ",.2f",
        "ess_bulk": ",.0f",
        "ess_tail": ",.0f",
        "r_hat": ".3f",
    }
    head = "".join(f'<th scope="col" class="number">{name}</th>' for name in columns)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(str(label))}</th>'
        + "".join(f'<td class="number">{row[name]:{form}}</td>' for name, form in columns.items())
        + "</tr>"
        for label, row in table.iterrows()
    )
    return f"""<details><summary>Summary of all quantities (also in summary.csv)</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Summary"><table class="data">
<thead><tr><td></td>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div></details>
"""
