"""The page's figure of exemplars: the images of a set to which the unit responds most."""

from html import escape

import numpy as np
from jaxtyping import UInt8

from ppl_cnn.inference.diagnostics.diagnose import Diagnosis
from ppl_cnn.inference.report.pictures.encoding import image_tag, joined, reduced
from ppl_cnn.inference.runs.exemplars import Exemplars

_SIDE = 112
"""Screen pixels along an image's longer side."""
_ON_CARD = 56
"""Pixels along an image's longer side on a card."""

_SEEN = {
    "anywhere": "The response is the filter's largest over the places of its map that see as much "
    "of an image as its centre, and each image is cropped to what that place sees.",
    "there": "The response is that at the unit's own place, and each image is what the unit sees.",
}


def exemplars_html(exemplars: Exemplars, diagnosis: Diagnosis) -> str:
    """The figure: the images, strongest first, with response, name and class of each.

    Args:
        exemplars: the unit's.
        diagnosis: of its draws, whose mean response is told beside.
    """
    unit = str(diagnosis.config.get("unit", "the unit"))
    figures = "\n".join(
        f"<figure>{image_tag(image, f'Exemplar {number + 1}: {name}', _SIDE)}"
        f"<figcaption><strong>{response:.3g}</strong> {escape(_called(name, label))}</figcaption>"
        f"</figure>"
        for number, (image, response, name, label) in enumerate(
            zip(
                exemplars.images,
                exemplars.responses,
                exemplars.names,
                exemplars.labels,
                strict=True,
            )
        )
    )
    count, table = len(exemplars.responses), diagnosis.summary
    mean, sd = (float(table.loc["response", column]) for column in ("mean", "sd"))
    return f"""<figure class="exemplars"><div class="strip">
{figures}
</div><figcaption><strong>Exemplars</strong>: the {count} of {exemplars.searched:,} images of \
{escape(exemplars.source)} to which {escape(unit)} responds most, with its response below. \
{_SEEN[exemplars.scored]} The response to the draws has mean {mean:.3g} and standard deviation \
{sd:.2g}.</figcaption></figure>
"""


def sheet(exemplars: Exemplars) -> UInt8[np.ndarray, "height width channel"]:
    """The exemplars in a square, or as many as fill one, for a card."""
    side = int(np.sqrt(len(exemplars.images)))
    few = reduced(exemplars.images[: side * side], _ON_CARD)
    return joined(few.reshape(side, side, *few.shape[1:]), gap=1)


def _called(name: str, label: str) -> str:
    return f"{label}, {name}" if label else name
