"""The registry of references: the keyword, the form and the meaning of every text.

Help texts, error messages and `parse_reference` read it. It imports nothing heavy, so that
`--help` answers at once.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Form(NamedTuple):
    """How a text names one kind of reference."""

    text: str
    """The form of the text; capitals stand for values, brackets for what may be left out."""
    meaning: str
    """What the reference is, for help texts."""
    home: str
    """module.Class in this folder; the module is imported when a text names the reference."""


REFERENCES: Mapping[str, Form] = {
    "white": Form(
        "white:SIGMA",
        "independent Gaussian noise of SIGMA grey levels about the mean image",
        "noise.WhiteNoise",
    ),
    "uniform": Form("uniform", "independent uniform pixels in 0..255", "noise.Uniform"),
    "spectral": Form(
        "spectral[:EXPONENT|:EXPONENT:RR,RG,RB,GG,GB,BB|:FILE.json][@CONTRAST]",
        "Gaussian noise with the spectrum (amplitude 1/f^EXPONENT) and the colours (covariance RR "
        "to BB) of natural images or of a file of ppl_cnn.Spectral.save; CONTRAST is a pixel's "
        "standard deviation in grey levels, 64 by default",
        "spectral.Spectral",
    ),
    "band": Form(
        "band:SIDE[:EXPONENT][@CONTRAST]",
        "the SIDE x SIDE lowest waves of spectral noise",
        "band.Band",
    ),
    "gaussian": Form(
        "gaussian:FILE.npz",
        "a Gaussian with the mean and the covariance of images, fitted by ppl_cnn.Gaussian.fit",
        "gaussian.Gaussian",
    ),
    "generator": Form(
        "generator:NAME",
        "the images of a generator (of a run of python -m ppl_cnn.generator, or of a file of "
        "weights, FILE@ARCHITECTURE), brought to the network's size and channels",
        "generator.GeneratorReference",
    ),
    "bounded": Form(
        "bounded:REFERENCE",
        "any of these but uniform and generators, with its pixels squashed into 0..255",
        "bounded.Bounded",
    ),
    "data": Form(
        "data:NAME[@SPLIT]",
        "the images of a data set (a name of `python -m ppl_cnn.data`, or folder:PATH for class "
        "folders; SPLIT is train by default), each weighted by the unit's response and drawn by "
        "its weight",
        "empirical.Empirical",
    ),
}
"""Keyword -> form. A new reference needs a file in this folder and an entry here."""
OWN = Form(
    "MODULE:ATTRIBUTE",
    "a generator of yours, a function or Flax NNX module with the attribute latent_shape",
    "generator.GeneratorReference",
)
"""The form of a text without a keyword."""


def known_forms() -> list[str]:
    """The forms of the texts that name a reference, for error messages."""
    return [form.text for form in (*REFERENCES.values(), OWN)]


def reference_help() -> str:
    """All forms and their meanings, a sentence each, for help texts."""
    return " ".join(f"{form.text}: {form.meaning}." for form in (*REFERENCES.values(), OWN))
