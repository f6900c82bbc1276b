"""The tilted density p_u(x) ∝ exp(f_u(x)/T) q(x), as a NumPyro model and as a potential."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro.infer.reparam import TransformReparam

from ppl_cnn import InputError
from ppl_cnn.models.network import Params
from ppl_cnn.models.references import Reference
from ppl_cnn.models.units import Image, Scored


@dataclass(frozen=True)
class TiltedDensity:
    """The image density of a unit: a reference q, tilted by the unit's score.

        log p(x) = f(x)/T + log q(x) - log Z(T),    Z(T) = E_q[exp(f(x)/T)]

    Source: Dai, Lu, Wu, Generative modeling of convolutional neural networks, ICLR 2015.

    Args:
        unit: a `Unit` of a network, or a `Response`.
        reference: q, for example `WhiteNoise(10.0)`.
        temperature: T > 0; 1 is the published model.
    """

    unit: Scored
    reference: Reference
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise InputError(
                f"The temperature must be positive and finite, not {self.temperature}."
            )

    def model(self, params: Params | None = None) -> None:
        """The density as a NumPyro model with one site, `image` (row, col, channel).

        Args:
            params: the unit's weights, by default its own. Programs that are compiled for long
                runs pass them as an argument, so that XLA need not fold them as constants.
        """
        image = numpyro.sample("image", self.reference.distribution(self.unit.shape))
        score = self.unit.score(self.unit.params if params is None else params, image)
        numpyro.factor("tilt", score / self.temperature)

    @property
    def whitened(self) -> Callable[..., None]:
        """The model in z: its site is `image_base`, a standard normal before the tilt."""
        return numpyro.handlers.reparam(self.model, config={"image": TransformReparam()})

    def potential(self, z: Image, params: Params | None = None) -> Float[Array, ""]:
        """U(z) = -f(R(z))/T + |z|^2/2, up to a constant the model's negative log density in z."""
        params = self.unit.params if params is None else params
        score = self.unit.score(params, self.reference.push(z))
        return -score / self.temperature + jnp.sum(z * z) / 2
