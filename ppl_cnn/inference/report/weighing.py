"""The page's sections on resampled draws: their weights, and the images that carry them."""

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float, UInt8

from ppl_cnn.inference.diagnostics.thresholds import ENOUGH_WEIGHTS
from ppl_cnn.inference.diagnostics.weighing import Labelled, Weighing
from ppl_cnn.inference.report.pictures import Stretched, image_tag
from ppl_cnn.inference.report.plots import concentration_html

_SIDE = 84
"""Screen pixels along a small image's longer side."""
_COMPARED = 16
"""Draws of the reference, and of the density, side by side."""
_EXEMPLARS = 16
"""The heaviest proposals that are shown."""
_CLASSES = 12
"""Classes whose share of the weight is shown."""


def weighing_html(
    weighing: Weighing,
    draws: Float[np.ndarray, "chain shown row col channel"],
    *,
    order: str,
    images: bool,
    heading: str,
) -> str:
    """The sections: the reference beside the density, the heaviest images, and the weights.

    Args:
        weighing: `Diagnosis.weighing`.
        draws: some of the draws.
        order: the network's order of channels.
        images: whether the proposals are a data set's images.
        heading: the tag of the headings.
    """
    flat = draws.reshape(-1, *draws.shape[2:])
    some = flat[np.linspace(0, len(flat) - 1, min(_COMPARED, len(flat))).astype(int)]
    q, heaviest = weighing.reference[:_COMPARED], weighing.heaviest[:_EXEMPLARS]
    stretched = Stretched.of(np.concatenate([q, some, heaviest]), order)
    ends = np.cumsum([len(q), len(some)])
    of_q, of_p, carriers = np.split(stretched.pixels, ends)
    shares = weighing.weights.shares[weighing.numbers[:_EXEMPLARS]]
    captions = [f"{share:.2%}" for share in shares]
    if weighing.names:
        captions = [
            f"{name}, {caption}" for name, caption in zip(weighing.names, captions, strict=False)
        ]
    what = "images" if images else "draws of the reference"
    return f"""<section>
<{heading}>What the tilt changed</{heading}>
<div class="row">
<figure>{_strip(of_q, "draw of q")}<figcaption><strong>q</strong>, the reference</figcaption>\
</figure>
<figure>{_strip(of_p, "draw of p")}<figcaption><strong>p</strong>, the reference tilted by the \
unit's response; {escape(str(stretched))}</figcaption></figure>
</div>
{_labels(weighing.labels)}</section>
<section>
<{heading}>The {what} that carry the weight</{heading}>
{_strip(carriers, "one of the heaviest", captions)}
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


def _strip(
    pixels: UInt8[np.ndarray, "image row col channel"], alt: str, captions: Sequence[str] = ()
) -> str:
    figures = []
    for number, image in enumerate(pixels):
        said = f"<figcaption>{escape(captions[number])}</figcaption>" if captions else ""
        figures.append(f"<figure>{image_tag(image, f'{alt}, {number}', _SIDE)}{said}</figure>")
    return f'<div class="strip">{"".join(figures)}</div>'


def _labels(labels: Sequence[Labelled]) -> str:
    if not labels:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row">{escape(each.label)}</th><td class="number">{each.images:.1%}</td>'
        f'<td class="number">{each.weight:.1%}</td></tr>'
        for each in labels[:_CLASSES]
    )
    more = f", the first {_CLASSES} of {len(labels)}" if len(labels) > _CLASSES else ""
    return f"""<table class="data"><caption>Shares of the classes{more}</caption><thead><tr>\
<th scope="col">class</th><th scope="col" class="number">of q</th>\
<th scope="col" class="number">of p</th></tr></thead><tbody>
{rows}
</tbody></table>
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
