"""Reference distributions q of images, each a push-forward of standard normal noise.

They are plain declarations. Where images stand (their shape, the network's mean and the order of
its channels) is told when the distribution is made; `TiltedDensity` does so for its unit."""

from typing import Protocol, runtime_checkable

import numpyro.distributions as dist

from ppl_cnn.models.networks.declaration import Preprocessing


@runtime_checkable
class Reference(Protocol):
    """A distribution of images x = R(z), z ~ N(0, I), in pixel units minus the network's mean.

    Its text, `str(reference)`, is all that determines it: `parse_reference` gives it back.
    """

    @property
    def linear(self) -> bool:
        """Whether R is linear: then E_p[x] = R(E_p[grad_z f(R(z))])/T, by Stein's identity."""

    @property
    def whole(self) -> bool:
        """Whether pixels depend on others far away.

        Then the field is the network's whole image, and a unit's image is a crop of it: the
        pixels outside are integrated out by sampling them along. Otherwise the unit's image is
        all the field there need be.
        """

    def distribution(
        self, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dist.TransformedDistribution:
        """q over fields of a (row, col, channel) shape; its base is N(0, I), its transforms R.

        The base has the field's shape or, of a reference with fewer dimensions than pixels, a
        smaller one.

        Raises:
            InputError: there is no such reference for images of these channels.
        """
