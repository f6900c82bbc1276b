"""The page's sections on resampled draws: their weights, and the images that carry them."""

from html import escape

from ppl_cnn.inference.diagnostics.thresholds import ENOUGH_WEIGHTS
from ppl_cnn.inference.diagnostics.weighing import Weighing
from ppl_cnn.inference.report.parts.plots import concentration_html
from ppl_cnn.inference.report.parts.tilting import strip_html
from ppl_cnn.inference.report.pictures.album import Tones

_EXEMPLARS = 16
"""The heaviest proposals that are shown."""


def weighing_html(weighing: Weighing, tones: Tones, *, images: bool, heading: str) -> str:
    """The sections: the heaviest images, and the weights.

    Args:
        weighing: `Diagnosis.weighing`.
        tones: how images are shown.
        images: whether the proposals are a data set's images.
        heading: the tag of the headings.
    """
    carriers = tones.render(weighing.heaviest[:_EXEMPLARS])
    shares = weighing.weights.shares[weighing.numbers[:_EXEMPLARS]]
    captions = [f"{share:.2%}" for share in shares]
    if weighing.names:
        captions = [
            f"{name}, {caption}" for name, caption in zip(weighing.names, captions, strict=False)
        ]
    what = "images" if images else "draws of the reference"
    return f"""<section>
<{heading}>The {what} that carry the weight</{heading}>
{strip_html(carriers.pixels, "one of the heaviest", captions)}
<p class="note">Each with its share of the weight; {escape(str(carriers))}.</p>
</section>
<section>
<{heading}>Weights</{heading}>
<p>Draws are independent, each of them one of {len(weighing.weights.tilts):,} {what} taken by \
its weight exp(f/T). Rows are made from the same {what}, so that they agree whatever these have \
missed: R-hat would say nothing here. What limits the draws are the weights.</p>
<div class="scroll"><table class="data"><tbody>
{_rows(weighing)}
</tbody></table></div>
{concentration_html(weighing.weights)}</section>
"""


def _rows(weighing: Weighing) -> str:
    weights, draws = weighing.weights, weighing.draws
    share = weights.effective / len(weights.tilts)
    rows = [
        ("log Z", str(weights.log_z), "± one standard error, of the mean weight"),
        (
            "ESS of the weights",
            f"{weights.effective:,.1f} ({share:.2g} of all)",
            f"at least {ENOUGH_WEIGHTS} is good",
        ),
        ("Largest weight", f"{weights.largest:.2%}", "of the whole weight"),
        (
            "Pareto k",
            f"{weights.pareto_k:.2f}",
            f"at most {weights.largest_k:.2f} is good; above, the largest weights are yet to come",
        ),
        (
            "Different images among the draws",
            f"{weighing.distinct:,} of {draws:,}",
            "the others are repeats",
        ),
        (
            "Effective draws",
            f"{weighing.effective:,.0f}",
            "as many independent draws tell as much: 1/(1/draws + 1/ESS)",
        ),
    ]
    return "\n".join(
        f'<tr><th scope="row">{name}</th><td>{said}</td><td>{note}</td></tr>'
        for name, said, note in rows
    )
