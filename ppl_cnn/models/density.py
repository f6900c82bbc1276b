"""The tilted density p_u(x) ∝ exp(f_u(x)/T) q(x), as a NumPyro model and as a potential."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.infer.reparam import TransformReparam

from ppl_cnn.errors import InputError
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.references.reference import Reference
from ppl_cnn.models.units.scored import Scored


@dataclass(frozen=True)
class TiltedDensity:
    """The image density of a unit: a reference q, tilted by the unit's score.

        log p(x) = f(x)/T + log q(x) - log Z(T),    Z(T) = E_q[exp(f(x)/T)]

    Source: Dai, Lu, Wu, Generative modeling of convolutional neural networks, ICLR 2015.

    Args:
        unit: a `Unit` of a network, or a `Response`.
        reference: q, for example `WhiteNoise(10.0)`; the unit says where its images stand.
        temperature: T > 0; 1 is the published model.

    Raises:
        InputError: T can't be used, or there is no such reference for the unit's images.
    """

    unit: Scored
    reference: Reference
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise InputError(
                f"The temperature must be positive and finite, not {self.temperature}."
            )
        _ = self.field

    @property
    def field_shape(self) -> tuple[int, int, int]:
        """(row, col, channel) of the field R(z): the unit's image or, where the reference ties
        its pixels to those outside, the network's whole image."""
        return self.unit.image_shape if self.reference.needs_whole_image else self.unit.shape

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(row, col, channel) of z: the field's or, of a band, fewer rows and columns."""
        row, col, channel = self.field.base_dist.event_shape
        return row, col, channel

    @property
    def linear(self) -> bool:
        """Whether x is linear in z; then E_p[x] = push(E_p[grad_z f(push(z))/T]) (Stein)."""
        return self.reference.push_is_linear

    @property
    def field(self) -> dist.TransformedDistribution:
        """q of the field R(z), which the unit's image is or is cropped from."""
        return self.reference.distribution(self.field_shape, self.unit.preprocessing)

    def push(
        self, z: Float[Array, "*batch latent_row latent_col channel"]
    ) -> Float[Array, "*batch row col channel"]:
        """The unit's image of a latent z of `latent_shape`: R(z), cropped to the unit's place."""
        for transform in self.field.transforms:
            z = transform(z)
        return self._crop(z)

    def pull(
        self, field: Float[Array, "*batch field_row field_col channel"]
    ) -> Float[Array, "*batch latent_row latent_col channel"]:
        """The latent z of a field R(z), in pixel units minus the mean.

        Of a field that is not in a band, it is that of its orthogonal projection.
        """
        for transform in reversed(self.field.transforms):
            field = transform.inv(field)
        return field

    def _crop(
        self, field: Float[Array, "*batch field_row field_col channel"]
    ) -> Float[Array, "*batch row col channel"]:
        if not self.reference.needs_whole_image:
            return field
        rows, cols = self.unit.rows, self.unit.cols
        return field[..., rows.start : rows.stop, cols.start : cols.stop, :]

    def model(self, params: Params | None = None) -> None:
        """The density as a NumPyro model with one site, `image`: the field, of `field_shape`.

        For white and uniform noise that is the unit's image; a spectral field is the network's
        whole image, and the unit's a crop of it. A band's fields have a density in the band
        alone, and none among all images: sample `whitened`.

        Args:
            params: the unit's weights, by default its own. Programs that are compiled for long
                runs pass them as an argument, so that XLA need not fold them as constants.
        """
        field = numpyro.sample("image", self.field)
        params = self.unit.params if params is None else params
        score = self.unit.score(params, self._crop(field))
        numpyro.factor("tilt", score / self.temperature)

    @property
    def whitened(self) -> Callable[..., None]:
        """The model in z: its site is `image_base`, of `latent_shape`, a standard normal before
        the tilt."""
        return numpyro.handlers.reparam(self.model, config={"image": TransformReparam()})

    def tilt(
        self, z: Float[Array, "latent_row latent_col channel"], params: Params | None = None
    ) -> Float[Array, ""]:
        """g(z) = f(R(z))/T."""
        params = self.unit.params if params is None else params
        return self.unit.score(params, self.push(z)) / self.temperature

    def potential(
        self, z: Float[Array, "latent_row latent_col channel"], params: Params | None = None
    ) -> Float[Array, ""]:
        """U(z) = |z|^2/2 - g(z), up to a constant the model's negative log density in z."""
        return jnp.sum(z * z) / 2 - self.tilt(z, params)


@lru_cache(1)
def gradient_bytes(density: TiltedDensity) -> int:
    """Memory that the gradient of one image's potential needs at once, beside image and weights."""
    z = jax.ShapeDtypeStruct(density.latent_shape, jnp.float32)
    gradient = jax.jit(jax.grad(density.potential)).lower(z, density.unit.params).compile()
    analysis = gradient.memory_analysis()
    return analysis.temp_size_in_bytes if analysis else 0
