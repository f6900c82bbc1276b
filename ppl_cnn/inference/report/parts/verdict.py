"""The page's part on the verdict: what was found, and the numbers that it rests on."""

import math
from html import escape

from ppl_cnn.inference.diagnostics.diagnose import Diagnosis
from ppl_cnn.inference.diagnostics.summary import Extreme
from ppl_cnn.inference.diagnostics.thresholds import BFMI_GOOD, ESS_GOOD, RHAT_GOOD
from ppl_cnn.inference.diagnostics.verdict.verdict import HEADLINES, Verdict
from ppl_cnn.inference.importance import Weights
from ppl_cnn.inference.report.parts.facts import advice_html, density_text

LABELS: dict[str, str] = {str(state): said for state, said in HEADLINES.items()}
LABELS["missing"] = "Nothing to show"
"""State of a unit -> what it means in a few words."""
SIGNS = {"good": "✓", "short": "△", "bad": "✕", "missing": "–"}
"""State of a unit -> its sign, which tells it apart without colours."""


def verdict_html(diagnosis: Diagnosis, heading: str) -> str:
    """The part: the verdict in words, and the numbers that it rests on.

    Args:
        diagnosis: the run's.
        heading: the tag of its heading.
    """
    verdict = diagnosis.verdict
    sign = f'<span aria-hidden="true">{SIGNS[verdict.state]}</span>'
    return f"""<section class="verdict {verdict.state}">
<{heading}>{sign} {escape(verdict.headline)}</{heading}>
<p>{advice_html(verdict.sentence, diagnosis.record)}</p>
<p class="note">{escape(density_text(diagnosis.config))}</p>
<dl class="numbers">
{_numbers(verdict)}
</dl>
</section>
"""


def _numbers(verdict: Verdict) -> str:
    if verdict.weights is not None:
        return _numbers_of_weights(verdict, verdict.weights)
    return "\n".join(
        (
            _worst("Largest R-hat", verdict.rhat, ".3f", "at most", RHAT_GOOD),
            _worst("Smallest bulk ESS", verdict.ess_bulk, ",.0f", "at least", ESS_GOOD),
            _worst("Smallest tail ESS", verdict.ess_tail, ",.0f", "at least", ESS_GOOD),
            _worst("Smallest E-BFMI", verdict.bfmi, ".2f", "at least", BFMI_GOOD),
            _number(
                "Divergences",
                f"{verdict.divergences:,}",
                f"of {verdict.draws:,} draws",
                verdict.divergences > 0,
            ),
            _number("Acceptance", f"{verdict.acceptance:.2f}", "mean"),
        )
    )


def _numbers_of_weights(verdict: Verdict, weights: Weights) -> str:
    k, good = weights.pareto_k, weights.largest_k
    ess = f"of {len(weights.tilts):,} proposals"
    return "\n".join(
        (
            _number("log Z", f"{weights.log_z.value:.3f}", f"± {weights.log_z.error:.2g}"),
            _worst("Effective draws", verdict.ess_bulk, ",.0f", "at least", ESS_GOOD),
            _number("ESS of the weights", f"{weights.effective:,.0f}", ess),
            _number("Pareto k", f"{k:.2f}", f"at most {good:.2f} is good", k > good),
        )
    )


def _worst(label: str, worst: Extreme, form: str, bound: str, threshold: float) -> str:
    value, of = worst
    if math.isnan(value):
        return _number(label, "–", f"undefined here; {bound} {threshold} is good")
    missed = value > threshold if bound == "at most" else value < threshold
    return _number(label, f"{value:{form}}", f"{of}; {bound} {threshold} is good", missed)


def _number(label: str, value: str, note: str, missed: bool = False) -> str:
    kind = "value missed" if missed else "value"
    return (
        f'<div><dt>{label}</dt><dd><span class="{kind}">{value}</span>'
        f"<small>{escape(note)}</small></dd></div>"
    )
