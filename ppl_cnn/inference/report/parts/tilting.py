"""The page's section on what the tilt changed: draws of q beside draws of p."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ppl_cnn.inference.diagnostics.diagnose import Diagnosis
from ppl_cnn.inference.diagnostics.weighing import Labelled
from ppl_cnn.inference.report.pictures.album import Tones, spread
from ppl_cnn.inference.report.pictures.encoding import image_tag

_SIDE = 84
"""Screen pixels along a small image's longer side."""
_COMPARED = 16
"""Draws of the reference, and of the density, side by side."""
_CLASSES = 12
"""Classes whose share of the weight is shown."""


def tilting_html(diagnosis: Diagnosis, heading: str) -> str:
    """The section; empty for noise of chains, and if no draws of the reference are stored.

    Args:
        diagnosis: the run's.
        heading: the tag of its heading.
    """
    shows = diagnosis.has_pictures or diagnosis.weighing is not None
    if diagnosis.reference is None or not shows:
        return ""
    q, p = diagnosis.reference[:_COMPARED], spread(diagnosis.images.shown, _COMPARED)
    both = Tones.of(diagnosis).render(np.concatenate([q, p]))
    of_q, of_p = np.split(both.pixels, [len(q)])
    labels = () if diagnosis.weighing is None else diagnosis.weighing.labels
    return f"""<section>
<{heading}>What the tilt changed</{heading}>
<div class="row">
<figure>{strip_html(of_q, "draw of q")}<figcaption><strong>q</strong>, the reference\
{_named(diagnosis.record)}</figcaption></figure>
<figure>{strip_html(of_p, "draw of p")}<figcaption><strong>p</strong>, the reference tilted by the \
unit's response; {escape(str(both))}</figcaption></figure>
</div>
{_labels(labels)}</section>
"""


def strip_html(
    pixels: UInt8[np.ndarray, "image row col channel"], alt: str, captions: Sequence[str] = ()
) -> str:
    """Small images side by side.

    Args:
        pixels: grey or RGB levels.
        alt: what each shows, in words.
        captions: plain text below each; none if there are none.
    """
    figures = []
    for number, image in enumerate(pixels):
        said = f"<figcaption>{escape(captions[number])}</figcaption>" if captions else ""
        figures.append(f"<figure>{image_tag(image, f'{alt}, {number}', _SIDE)}{said}</figure>")
    return f'<div class="strip">{"".join(figures)}</div>'


def _named(record: Mapping[str, Any]) -> str:
    """What q is, as far as the record tells."""
    reference, training = record.get("config", {}).get("reference"), record.get("generator", {})
    said = f" {escape(str(reference))}" if reference else ""
    if {"data", "training_images"} <= set(training):
        images, data = training["training_images"], escape(str(training["data"]))
        said += f": a generator that was trained on {images:,} images of {data}, without labels"
    return said


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
