"""The page's part on an approximate kernel: means at the step and at half of it."""

import math
from html import escape

from ppl_cnn.inference.diagnostics.mixing.step_bias import Halved, StepBias


def step_bias_html(bias: StepBias, heading: str) -> str:
    """The table of the means at both steps.

    Args:
        bias: `Diagnosis.step_bias`.
        heading: the tag of its heading.
    """
    whole, half = bias.steps
    names = (f"mean at {whole:.3g}", f"mean at {half:.3g}", "difference", "in errors", "in sd")
    head = "".join(f'<th scope="col" class="number">{name}</th>' for name in names)
    rows = "\n".join(map(_row, bias.quantities))
    return f"""<section>
<{heading}>The step's bias</{heading}>
<p>No step is corrected. Chains of even number take steps of {whole:.3g} radians, those of odd
number of {half:.3g}. Where the error falls like the square of the step, the draws at half the step
are off by about a third of the difference, the others by four thirds of it.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Bias"><table class="data">
<thead><tr><td></td>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
</section>
"""


def _row(each: Halved) -> str:
    errors = "–" if math.isnan(each.errors) else f"{each.errors:+.1f}"
    share = f"{each.difference / each.sd:+.2g}" if each.sd > 0 else "–"
    cells = (
        f"{each.whole:,.4g} ± {each.whole_error:.2g}",
        f"{each.half:,.4g} ± {each.half_error:.2g}",
        f"{each.difference:+,.3g}",
        errors,
        share,
    )
    body = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{escape(each.of)}</th>{body}</tr>'
