"""The protocol of references q: distributions of images that are push-forwards of normal noise.

A reference is a plain declaration without arrays of an image's size. It learns the image's shape,
the network's mean and the channel order when its distribution is made; `TiltedDensity` passes them.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpyro.distributions as dist
from jaxtyping import PyTree

from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.photographs import Measured


@runtime_checkable
class Reference(Protocol):
    """A distribution q of images x = R(z), z ~ N(0, I), in pixel units minus the network's mean.

    `str(reference)` determines it: `parse_reference` gives it back.
    """

    @property
    def push_is_linear(self) -> bool:
        """Whether R is affine in z; then E_p[x] = R(E_p[grad_z f(R(z))]/T) by Stein's identity."""

    @property
    def needs_whole_image(self) -> bool:
        """Whether a pixel depends on pixels outside the unit's receptive field.

        If so, R(z) is the network's whole image and the unit's image is a crop of it; sampling
        the pixels outside integrates them out. If not, R(z) is the unit's image itself.
        """

    @property
    def is_invertible(self) -> bool:
        """Whether R has an inverse, on its images at least; then q has a density on them.

        Samplers in z need neither.
        """

    @property
    def params(self) -> PyTree:
        """The weights of R: a tree of arrays, {} without any.

        The reference's text identifies them, for example by a digest.
        """

    def distribution(
        self,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        params: PyTree | None = None,
    ) -> dist.TransformedDistribution:
        """The distribution q of images; its base is N(0, I), its transforms are R.

        Args:
            shape: (row, col, channel) of R(z). The base has this shape, or another one, of any
                rank, if the reference has not as many dimensions as an image has pixels.
            preprocessing: the network's mean and channel order.
            params: the weights of R; by default the reference's own. Compiled programs pass them
                as an argument, so that XLA need not fold them as constants.

        Raises:
            InputError: the reference is not defined for images of this shape.
        """


class Context(NamedTuple):
    """What the text of a reference may refer to."""

    parse: Callable[[str], Reference]
    """Parses the text of another reference, which this one contains."""
    photographs: Callable[[], Measured] | None
    """Measures the user's photographs, which takes a while; None if there are none."""


class Parsed(Reference, Protocol):
    """A reference that a text can name; `registry.REFERENCES` lists them."""

    @classmethod
    def parse(cls, rest: str, context: Context) -> Self:
        """The reference that a text names.

        Args:
            rest: the text after the keyword, from the ":" or "@" on; it may be empty.
            context: what the text may refer to.

        Raises:
            InputError: a number or a file in the text can't be used.
            ValueError: the text doesn't have the reference's form.
        """


def after_colon(rest: str) -> str:
    """The text after the colon that `rest` must begin with.

    Raises:
        ValueError: there is no colon, or nothing follows it.
    """
    if not rest.startswith(":") or rest == ":":
        raise ValueError(f"{rest!r} gives no value after a colon")
    return rest[1:]
