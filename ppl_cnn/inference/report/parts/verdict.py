"""The page's part on the verdict: what was found, and the numbers that it rests on."""

from html import escape

from ppl_cnn.inference.diagnostics.diagnose import Diagnosis
from ppl_cnn.inference.diagnostics.verdict.rule import RULE, Figure
from ppl_cnn.inference.diagnostics.verdict.verdict import HEADLINES
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
    verdict, figures = diagnosis.verdict, list(diagnosis.verdict.figures)
    if verdict.weights is None and diagnosis.log_z is not None:
        (value, error), how = diagnosis.log_z
        figures.append(Figure("log Z", f"{value:.3f}", f"± {error:.2g}, {how}", None))
    sign = f'<span aria-hidden="true">{SIGNS[verdict.state]}</span>'
    return f"""<section class="verdict {verdict.state}">
<{heading}>{sign} {escape(verdict.headline)}</{heading}>
<p>{advice_html(verdict.sentence, diagnosis.record)}</p>
<p class="note">{escape(density_text(diagnosis.config))}</p>
<dl class="numbers">
{"".join(map(_number, figures))}</dl>
<details><summary>The rule</summary><p class="note">{escape(RULE)}</p></details>
</section>
"""


def _number(figure: Figure) -> str:
    return (
        f"<div><dt>{escape(figure.name)}</dt><dd>{marked_html(figure, 'value')}"
        f"<small>{escape(figure.note)}</small></dd></div>\n"
    )


def marked_html(figure: Figure, kind: str = "") -> str:
    """A figure's number, with the sign and the colour of its state if it has one.

    Args:
        figure: the figure.
        kind: a class of the style sheet.
    """
    text, state = escape(figure.text), figure.state
    if state is None:
        return f'<span class="{kind}">{text}</span>' if kind else text
    said = f'<span class="hidden">{LABELS[state]}: </span>'
    sign = f'<span aria-hidden="true">{SIGNS[state]}</span>'
    kinds = " ".join(filter(None, ("marked", kind, state)))
    return f'<span class="{kinds}">{sign} {said}{text}</span>'
