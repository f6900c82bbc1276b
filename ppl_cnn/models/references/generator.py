"""The reference of a generator's images: q is learned."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.models.generators.generator import Generator
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.photographs import LUMA
from ppl_cnn.models.references.reference import Context, after_colon
from ppl_cnn.models.references.transforms import Images, push_forward
from ppl_cnn.numeric import single
from ppl_cnn.user_modules import names_an_object

_NAMED = re.compile(r"(.+?)(?:@([0-9a-f]{16}))?", re.DOTALL)
"""A generator's text, and the digest that a record has of it."""


@dataclass(frozen=True)
class GeneratorReference:
    """The reference of a generator's images: R(z) = A G(z) - mean, with G's pixels in 0..255.

    A brings G's image to the network's, and is a part of q. It is the linear map

    - of RGB to grey (luma, ITU-R 601) or of grey to three equal channels, and to the network's
      channel order, where the two differ;
    - of G's rows and columns to the network's, each by cubic interpolation, which averages over
      more pixels where the image becomes smaller (`jax.image.resize`, "cubic", antialiased). Next
      to edges it can exceed 0..255 a little. An image of another aspect is stretched. Where the
      sizes agree, pixels stay as they are.

    The image has fewer dimensions than pixels, and R has no inverse that is known, so q has no
    density among images. Samplers in z don't need one: tilting q is tilting N(0, I) by f(R(z))/T,
    whatever G is. Among NumPyro models, sample `TiltedDensity.whitened`.

    Args:
        generator: G. `GeneratorReference.load` opens one by its text; `GeneratorReference.of` takes
            a function or a Flax NNX module of yours.

    Examples:
        >>> import jax.numpy as jnp, ppl_cnn
        >>> def stripes(z):
        ...     return 128 + 40 * jnp.tile(z[:, None, None], (1, 4, 1))
        >>> reference = ppl_cnn.GeneratorReference.of(stripes, latent_shape=(4,))
        >>> score = ppl_cnn.ScoreFunction(jnp.mean, (8, 8, 1), mean=(128.0,))
        >>> density = ppl_cnn.TiltedDensity(score, reference)
        >>> density.latent_shape
        (4,)
        >>> density.push(jnp.ones(4)).shape  # enlarged to the score's images
        (8, 8, 1)
    """

    generator: Generator
    push_is_linear: ClassVar = False
    needs_whole_image: ClassVar = True
    is_invertible: ClassVar = False

    def __str__(self) -> str:
        return f"generator:{self.generator.name}@{self.generator.digest}"

    @property
    def params(self) -> PyTree:
        """The generator's weights."""
        return self.generator.params

    @classmethod
    def of(
        cls,
        function: Callable[[Float[Array, "..."]], Float[Array, "row col channel"]],
        *,
        latent_shape: tuple[int, ...] | None = None,
        name: str | None = None,
    ) -> Self:
        """The reference of a function or a Flax NNX module of yours (see `user_generator`).

        Args:
            function: from one latent to one image (row, col, channel) of pixels 0..255.
            latent_shape: the shape of z; by default the attribute `latent_shape` of `function`.
            name: the text that names it; by default its module and its own name.

        Raises:
            ArgumentError: there is no shape of z, or the function doesn't return an image of it.
        """
        from ppl_cnn.models.generators.user_generators import user_generator

        return cls(user_generator(function, latent_shape=latent_shape, name=name))

    @classmethod
    def load(cls, text: str) -> Self:
        """Opens a generator.

        Args:
            text: "package.module:attribute" for one of yours (see `load_user_generator`), or what
                `load_generator` opens.

        Raises:
            InputError: there is no such generator, or it can't be used.
        """
        if names_an_object(text):
            from ppl_cnn.models.generators.user_generators import load_user_generator

            return cls(load_user_generator(text))
        from ppl_cnn.models.generators.loading import load_generator

        return cls(load_generator(text))

    @classmethod
    def parse(cls, rest: str, context: Context) -> Self:
        """The reference of the text generator:NAME or, as in a record, generator:NAME@DIGEST.

        Raises:
            InputError: there is no such generator, it can't be used, or it has another digest.
        """
        found = _NAMED.fullmatch(after_colon(rest))
        assert found is not None
        reference = cls.load(found[1])
        digest = reference.generator.digest
        if found[2] not in (None, digest):
            raise FileError(
                f"{found[1]!r} is the generator {digest}, not {found[2]}: it was changed since. "
                f"Restore it, or leave out @{found[2]}.",
                path=found[1],
            )
        return reference

    def distribution(
        self,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        params: PyTree | None = None,
    ) -> dist.TransformedDistribution:
        """The distribution q of images of a (row, col, channel) shape.

        Raises:
            MismatchError: the network's images have neither 1 nor 3 channels.
        """
        if shape[-1] not in (1, 3):
            raise MismatchError(
                f"A generator's images are grey or RGB, but the network's have {shape[-1]} "
                f"channels. Give another reference."
            )
        weights = self.params if params is None else params
        generated = Generated(self.generator, weights, shape=shape, preprocessing=preprocessing)
        return push_forward(self.generator.latent_shape, [generated])


class Generated(Transform):
    """R(z) = A G(z) - mean (see `GeneratorReference`).

    Args:
        generator: G.
        params: its weights.
        shape: (row, col, channel) of the network's image.
        preprocessing: the network's mean and channel order.
    """

    codomain = constraints.independent(constraints.real, 3)

    def __init__(
        self,
        generator: Generator,
        params: PyTree,
        *,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
    ) -> None:
        self.generator, self.params = generator, params
        self.shape, self.preprocessing = shape, preprocessing

    @property
    def domain(self) -> constraints.Constraint:
        """Latents of the generator's shape."""
        return constraints.independent(constraints.real, len(self.generator.latent_shape))

    def __call__(self, z: Float[Array, "..."]) -> Images:
        """Maps latents, with any leading axes, to R(z)."""
        image = self.generator.apply(self.params, single(z))
        image = _coloured(_resized(image, self.shape[:2]), self.shape[-1])
        if self.preprocessing.order == "BGR":
            image = image[..., ::-1]
        mean = np.asarray(self.preprocessing.mean, np.float32)
        return image - mean.reshape((1,) * (image.ndim - 1) + (-1,))

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the images of latents."""
        return (*shape[: len(shape) - len(self.generator.latent_shape)], *self.shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the latents of images."""
        return (*shape[:-3], *self.generator.latent_shape)

    def _inverse(self, y: Images) -> Array:
        raise _no_density(self.generator)

    def log_abs_det_jacobian(self, x: Array, y: Images, intermediates: Any = None) -> Array:
        """None: images have no density.

        Raises:
            MismatchError: always.
        """
        raise _no_density(self.generator)

    def tree_flatten(self) -> Any:
        """A pytree of the weights; the generator is static and identified by its digest."""
        static = {
            "generator": self.generator,
            "shape": self.shape,
            "preprocessing": self.preprocessing,
        }
        return (self.params,), (("params",), static)

    def eq(self, other: Any, static: bool = False) -> bool:
        """Whether both are the same map for the same network."""
        return isinstance(other, Generated) and self.tree_flatten()[1] == other.tree_flatten()[1]


def _no_density(generator: Generator) -> MismatchError:
    return MismatchError(
        f"The images of generator {generator.name} have no density that is known. Sample z: give "
        f"the density's `whitened` model."
    )


def _resized(
    image: Images, size: tuple[int, int]
) -> Float[Array, "*batch row_out col_out channel"]:
    """Images of that many rows and columns."""
    if image.shape[-3:-1] == size:
        return image
    shape = (*image.shape[:-3], *size, image.shape[-1])
    resized: Array = jax.image.resize(image, shape, "cubic")
    return resized


def _coloured(image: Images, channels: int) -> Float[Array, "*batch row col channel_out"]:
    """RGB images as grey, or grey images as RGB."""
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return jnp.repeat(image, 3, axis=-1)
    luma = np.asarray(LUMA, np.float32).reshape((1,) * (image.ndim - 1) + (3,))
    return jnp.sum(image * luma, axis=-1, keepdims=True)
