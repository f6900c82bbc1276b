"""The page's section that compares its run with another one of the same density."""

import math
from html import escape

from ppl_cnn.inference.diagnostics.comparison import Compared, Comparison
from ppl_cnn.inference.diagnostics.diagnose import Diagnosis
from ppl_cnn.inference.diagnostics.thresholds import DIFFERENT

_SHOWN = ("mean response", "sd of the response", "log Z")


def comparison_html(comparison: Comparison, heading: str) -> str:
    """The section: what both runs estimate, and how far they are apart.

    Args:
        comparison: of the page's run with the other.
        heading: the tag of its heading.
    """
    worst = comparison.worst
    rest = [each for each in comparison.quantities if each.name not in _SHOWN]
    shown = [each for each in comparison.quantities if each.name in _SHOWN]
    shown += sorted(rest, key=lambda each: -abs(each.errors))[:1]
    rows = "\n".join(map(_row, shown))
    kernels = [str(each.config.get("kernel", "?")) for each in (comparison.one, comparison.other)]
    said = "agree" if comparison.agree else "differ"
    return f"""<section>
<{heading}>Beside another run</{heading}>
<p>This run and <code>{escape(str(comparison.other.folder))}</code> {said}: of \
{len(comparison.quantities)} quantities, {escape(worst.name)} differs most, by \
{abs(worst.errors):.1f} joint standard errors. Up to {DIFFERENT:g} is chance. \
{_trust(comparison)}</p>
<div class="scroll"><table class="data"><thead><tr><td></td><th scope="col">this run, \
{escape(kernels[0])}</th><th scope="col">the other, {escape(kernels[1])}</th>\
<th scope="col" class="number">difference in standard errors</th></tr></thead><tbody>
{rows}
</tbody></table></div>
</section>
"""


def _row(each: Compared) -> str:
    errors = "–" if math.isnan(each.errors) else f"{each.errors:+.1f}"
    return (
        f'<tr><th scope="row">{escape(each.name)}</th><td>{each.one}</td><td>{each.other}</td>'
        f'<td class="number">{errors}</td></tr>'
    )


def _trust(comparison: Comparison) -> str:
    """What the verdicts say of the standard errors."""
    bad = [
        name
        for name, run in (("this run's", comparison.one), ("the other's", comparison.other))
        if _is_bad(run)
    ]
    if not bad:
        return ""
    return f"But {' and '.join(bad)} draws can't be relied on, and neither can their errors."


def _is_bad(run: Diagnosis) -> bool:
    return run.verdict.state == "bad"
