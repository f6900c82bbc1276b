"""The empirical reference: q is the images of a data set themselves."""

import re
from dataclasses import dataclass, field
from typing import Self

from ppl_cnn.data import ImageSplit, open_split
from ppl_cnn.models.references.reference import Context, after_colon

_TEXT = re.compile(r"(?P<name>.+?)(@(?P<split>[\w\[\]:%+-]+))?", re.DOTALL)
DEFAULT_SPLIT = "train"


@dataclass(frozen=True)
class Empirical:
    """The images of a data set, each as probable: the reference of the paper's theory.

    The generative gradient tilts the distribution of the training images. This q is no
    push-forward of noise and has no density: what it tilts to is its images with weights, an
    `EmpiricalDensity`.

    Args:
        name: a data set of `ppl_cnn.data`: NAME, NAME/VARIANT, or folder:PATH for class folders.
        split: train or test, or a part in TFDS's notation, such as train[:1000].

    Raises:
        InputError: there is no such data set or split, or it is not prepared.

    Examples:
        >>> q = Empirical("fashion-embedded", "test[:100]")
        >>> str(q), len(q.images)
        ('data:fashion-embedded@test[:100]', 100)
    """

    name: str
    split: str = DEFAULT_SPLIT
    images: ImageSplit = field(init=False, repr=False, compare=False)
    """The images, by position."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", open_split(self.name, self.split))

    def __str__(self) -> str:
        return f"data:{self.name}" + ("" if self.split == DEFAULT_SPLIT else f"@{self.split}")

    @property
    def identity(self) -> str:
        """What the images are: the prepared data set with its version, and their number."""
        return f"{self.images.identity}, {len(self.images)} images"

    @classmethod
    def parse(cls, rest: str, context: Context) -> Self:
        """The reference of the text data:NAME[@SPLIT] (see `Parsed.parse`)."""
        found = _TEXT.fullmatch(after_colon(rest))
        if found is None:
            raise ValueError(f"{rest!r} names no data set")
        return cls(found["name"], found["split"] or DEFAULT_SPLIT)
