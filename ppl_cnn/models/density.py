"""The tilted density p_u(x) ∝ exp(f_u(x)/T) q(x), as a log-density and a NumPyro model."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree
from numpyro.infer.reparam import TransformReparam

from ppl_cnn.errors import MismatchError
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.references.reference import Reference
from ppl_cnn.models.units.score_function import Scored
from ppl_cnn.numeric import plain_fields, positive


class DensityParams(NamedTuple):
    """The arrays of a density's program."""

    unit: Params
    """The unit's weights."""
    reference: PyTree
    """The reference's weights, {} if it has none."""


@dataclass(frozen=True)
class TiltedDensity:
    """The image density of a unit: a reference q, tilted by the unit's score f.

        log p(x) = f(x)/T + log q(x) - log Z(T),    Z(T) = E_q[exp(f(x)/T)]

    Images x are in pixel units (0..255) minus the mean. Every reference is a push-forward
    x = R(z) of a latent z ~ N(0, I), and samplers work in z: give `log_density` to blackjax, or
    `whitened` to NumPyro.

    Source: Dai, Lu, Wu, Generative modeling of convolutional neural networks, ICLR 2015.

    Args:
        unit: a unit of a network, or a `ScoreFunction`.
        reference: q, for example `WhiteNoise(10.0)`. Its mean and channel order come from the
            unit's preprocessing.
        temperature: T > 0; 1 is the published model.

    Raises:
        ArgumentError: T is not positive and finite.
        InputError: the reference has no images of the unit's shape.

    Examples:
        A linear score tilts white noise N(0, s^2 I) to N(s^2 w/T, s^2 I):

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from ppl_cnn.models.references.noise import WhiteNoise
        >>> from ppl_cnn.models.units.score_function import ScoreFunction
        >>> score = ScoreFunction(lambda x: 0.5 * jnp.sum(x), (2, 2, 1))
        >>> density = TiltedDensity(score, WhiteNoise(2.0), temperature=0.5)
        >>> z = jnp.zeros(density.latent_shape)
        >>> gradient = jax.grad(density.log_density)(z)
        >>> density.push(gradient)[..., 0].tolist()  # one Newton step from 0 is the mean
        [[4.0, 4.0], [4.0, 4.0]]
    """

    unit: Scored
    reference: Reference
    temperature: float = 1.0

    def __post_init__(self) -> None:
        plain_fields(self)
        positive("temperature", self.temperature)
        _ = self.field

    @property
    def field_shape(self) -> tuple[int, int, int]:
        """The shape (row, col, channel) of the field R(z).

        That is the unit's image or, where the reference correlates its pixels with those outside,
        the network's whole image.
        """
        return self.unit.image_shape if self.reference.needs_whole_image else self.unit.shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of z: the field's, a smaller one for a `Band`, a generator's of any rank."""
        shape: tuple[int, ...] = self.field.base_dist.event_shape
        return shape

    @property
    def views(self) -> int:
        """How many images the score looks at, and so the network's gradients in one of f."""
        return int(self.unit.settings.get("warps", 1))

    @property
    def params(self) -> DensityParams:
        """The weights of unit and reference, which compiled programs take as an argument."""
        return DensityParams(self.unit.params, self.reference.params)

    @property
    def has_stein_mean(self) -> bool:
        """Whether E_p[x] = push(E_p[grad g(z)]), with g the `tilt`.

        This identity (Stein) holds where x is linear in z.
        """
        return self.reference.push_is_linear

    @property
    def field(self) -> dist.TransformedDistribution:
        """The reference as a NumPyro distribution of the field R(z), of `field_shape`."""
        return self._field(None)

    def _field(self, params: DensityParams | None) -> dist.TransformedDistribution:
        """The field with these weights of the reference, by default its own."""
        weights = None if params is None else params.reference
        return self.reference.distribution(self.field_shape, self.unit.preprocessing, weights)

    def push(
        self, z: Float[Array, "..."], params: DensityParams | None = None
    ) -> Float[Array, "*batch row col channel"]:
        """The unit's image of a latent: the field R(z), cropped to the unit's rows and columns.

        Args:
            z: (*batch, *latent_shape).
            params: the density's weights; by default its own.
        """
        for transform in self._field(params).transforms:
            z = transform(z)
        return self.crop(z)

    def pull(
        self, field: Float[Array, "*batch field_row field_col channel"]
    ) -> Float[Array, "..."]:
        """The latent z of a field R(z), (*batch, *latent_shape).

        A field that no z gives, such as one outside a `Band`, is projected orthogonally first.

        Args:
            field: of `field_shape`, in pixel units minus the mean.

        Raises:
            MismatchError: the reference can't be inverted.
        """
        if not self.reference.is_invertible:
            raise MismatchError(
                f"Reference {self.reference} can't be inverted. Find a latent whose image is near, "
                f"as starts at images do."
            )
        for transform in reversed(self.field.transforms):
            field = transform.inv(field)
        return field

    def crop(
        self, field: Float[Array, "*batch field_row field_col channel"]
    ) -> Float[Array, "*batch row col channel"]:
        """The unit's image in a field of `field_shape`."""
        if not self.reference.needs_whole_image:
            return field
        rows, cols = self.unit.rows, self.unit.cols
        return field[..., rows.start : rows.stop, cols.start : cols.stop, :]

    def model(self, params: DensityParams | None = None) -> None:
        """The density as a NumPyro model with one site, `image`: the field, of `field_shape`.

        For white and uniform noise the field is the unit's image. For a spectral reference it is
        the network's whole image, which the unit's is cropped from. A `Band` has no density among
        all images, and a reference that can't be inverted has none that is known: sample
        `whitened`.

        Args:
            params: the density's weights; by default its own. Programs that are compiled for long
                runs pass them as an argument, so that XLA need not fold them as constants.
        """
        params = self.params if params is None else params
        field = numpyro.sample("image", self._field(params))
        score = self.unit.score(params.unit, self.crop(field))
        numpyro.factor("tilt", score / self.temperature)

    def whitened(self, params: DensityParams | None = None) -> None:
        """The density as a NumPyro model of z, for `NUTS(density.whitened)`.

        Its latent site is `image_base`, of `latent_shape`, a standard normal before the tilt; the
        field is the deterministic site `image`.

        Args:
            params: the density's weights; by default its own. See `model`.
        """
        numpyro.handlers.reparam(self.model, config={"image": TransformReparam()})(params)

    def tilt(self, z: Float[Array, "..."], params: DensityParams | None = None) -> Float[Array, ""]:
        """The tilt g(z) = f(R(z))/T of a latent.

        Args:
            z: of `latent_shape`.
            params: the density's weights; by default its own.
        """
        params = self.params if params is None else params
        return self.unit.score(params.unit, self.push(z, params)) / self.temperature

    def log_density(
        self, z: Float[Array, "..."], params: DensityParams | None = None
    ) -> Float[Array, ""]:
        """The log-density of a latent up to a constant: g(z) - |z|^2/2, with g the `tilt`.

        It is what samplers such as blackjax's take, and can be differentiated in reverse and
        forward mode and to any order.

        Args:
            z: of `latent_shape`.
            params: the density's weights; by default its own.

        Examples:
            >>> import blackjax
            >>> import jax
            >>> import jax.numpy as jnp
            >>> from ppl_cnn.models.references.noise import WhiteNoise
            >>> from ppl_cnn.models.units.score_function import ScoreFunction
            >>> score = ScoreFunction(lambda x: 0.5 * jnp.sum(x), (2, 2, 1))
            >>> density = TiltedDensity(score, WhiteNoise(2.0))
            >>> scale = jnp.ones(4)
            >>> nuts = blackjax.nuts(density.log_density, step_size=0.5, inverse_mass_matrix=scale)
            >>> state = nuts.init(jnp.zeros(density.latent_shape))
            >>> state, info = nuts.step(jax.random.key(0), state)
            >>> density.push(state.position).shape
            (2, 2, 1)
        """
        return self.tilt(z, params) - jnp.sum(z * z) / 2

    def potential(
        self, z: Float[Array, "..."], params: DensityParams | None = None
    ) -> Float[Array, ""]:
        """The potential U(z) = |z|^2/2 - g(z), which is -`log_density`(z).

        Args:
            z: of `latent_shape`.
            params: the density's weights; by default its own.
        """
        return jnp.sum(z * z) / 2 - self.tilt(z, params)


@lru_cache(1)
def gradient_bytes(density: TiltedDensity) -> int:
    """The memory, in bytes, of one image's potential and gradient beside image and weights."""
    z = jax.ShapeDtypeStruct(density.latent_shape, jnp.float32)
    gradient = jax.jit(jax.grad(density.potential)).lower(z, density.params).compile()
    analysis = gradient.memory_analysis()
    return analysis.temp_size_in_bytes if analysis else 0
