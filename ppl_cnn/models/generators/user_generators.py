"""Generators of the user's own: a function or a Flax NNX module of a latent."""

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import ClosedJaxpr  # type: ignore[attr-defined]  # JAX exports it untyped
from jaxtyping import Array, Float, PyTree

from ppl_cnn.errors import ArgumentError, InputError, one_line
from ppl_cnn.models.generators.generator import Generator, digest_of
from ppl_cnn.models.networks.convolution import hasten
from ppl_cnn.user_modules import called, named_object


def load_user_generator(text: str) -> Generator:
    """Opens a generator of the user's.

    Args:
        text: "package.module:attribute". The attribute is a function or an `nnx.Module` with the
            attribute `latent_shape` (see `user_generator`), a `Generator`, or a function or class
            without arguments that makes one of these.

    Raises:
        ArgumentError: the module can't be imported, or the attribute is or makes no generator.
        UnknownNameError: the module has no such attribute.
    """
    made = named_object(text, argument="reference")
    if isinstance(made, type) or (callable(made) and not _is_generator(made)):
        made = called(made, text, argument="reference")
    if not _is_generator(made):
        raise ArgumentError(
            f"{text} must be or make a function or nnx.Module with the attribute latent_shape, "
            f"not {type(made).__name__}.",
            argument="reference",
        )
    return made if isinstance(made, Generator) else user_generator(made, name=text)


def _is_generator(made: object) -> bool:
    return callable(made) and not isinstance(made, type) and hasattr(made, "latent_shape")


def user_generator(
    function: Callable[[Float[Array, "..."]], Float[Array, "row col channel"]],
    *,
    latent_shape: tuple[int, ...] | None = None,
    name: str | None = None,
) -> Generator:
    """A function or module of yours as a generator x = G(z), z ~ N(0, I).

    It is called on one latent, of `latent_shape`, and returns one image (row, col, channel) of
    pixels 0..255; one channel is grey, three are RGB. It is traced once. The arrays that it holds,
    such as a module's weights, become the generator's weights. A module is copied and put into
    inference mode (`module.eval()`), and its `nnx.Conv` layers get fast gradients.

    The digest covers the traced program and all arrays in it, so whatever the function calls
    counts. It can change with the version of JAX, which may trace another program.

    Args:
        function: a function, or an `nnx.Module`, that JAX can trace and differentiate.
        latent_shape: the shape of z; by default the attribute `latent_shape` of `function`.
        name: the text that names it; by default its module and its own name.

    Raises:
        ArgumentError: there is no shape of z, or the function doesn't return an image of it.
    """
    shape: Any = latent_shape or getattr(function, "latent_shape", None)
    kind = function if hasattr(function, "__qualname__") else type(function)
    name = name or f"{kind.__module__}:{kind.__qualname__}"
    if not _is_shape(shape):
        raise ArgumentError(
            f"`latent_shape` of {name} must be a tuple of positive whole numbers, not {shape!r}.",
            argument="latent_shape",
        )
    if isinstance(function, nnx.Module):
        function = _ready(function)
    program = _traced(function, shape, name)

    def apply(params: PyTree, z: Float[Array, "..."]) -> Float[Array, "*batch row col channel"]:
        flat = z.reshape(-1, *shape)
        images: Array = jax.vmap(
            lambda one: jax.core.eval_jaxpr(program.jaxpr, params, one)[0].astype(jnp.float32)
        )(flat)
        return images.reshape(*z.shape[: z.ndim - len(shape)], *images.shape[1:])

    (image,) = program.out_avals
    params = tuple(map(jnp.asarray, program.consts))
    text = re.sub(r" at 0x[0-9a-f]+", "", str(program))
    inner = tuple(_inner_arrays(program))
    digest = digest_of((params, inner), {"program": text, "latent_shape": list(shape)})
    return Generator(
        name=name,
        latent_shape=tuple(shape),
        image_shape=image.shape,
        apply=apply,
        params=params,
        digest=digest,
    )


def _is_shape(shape: Any) -> TypeGuard[tuple[int, ...]]:
    return (
        isinstance(shape, tuple)
        and len(shape) > 0
        and all(isinstance(size, int) and size > 0 for size in shape)
    )


def _ready(module: nnx.Module) -> nnx.Module:
    """A copy in inference mode, whose convolutions have fast gradients."""
    module = nnx.clone(module)
    module.eval()
    for _, part in nnx.iter_modules(module):
        hasten(part)
    return module


def _traced(function: Callable[[Array], Array], shape: tuple[int, ...], name: str) -> ClosedJaxpr:
    """The function's program of one latent."""
    z = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        program = jax.make_jaxpr(lambda z: function(z))(z)
    except InputError:
        raise
    except Exception as error:  # whatever a user's function raises
        raise ArgumentError(
            f"{name} can't be called on a latent of shape {shape} ({one_line(error)}).",
            argument="latent_shape",
        ) from error
    found = program.out_avals
    is_image = len(found) == 1 and len(found[0].shape) == 3 and found[0].shape[-1] in (1, 3)
    if not (is_image and jnp.issubdtype(found[0].dtype, jnp.floating)):
        raise ArgumentError(
            f"{name} must return an image (row, col, channel) of floats with 1 or 3 channels, "
            f"not {', '.join(str(each) for each in found)}.",
            argument="latent_shape",
        )
    return program


def _inner_arrays(program: ClosedJaxpr) -> Iterator[np.ndarray]:
    """The arrays of programs within a program, such as what a jitted function holds."""
    for equation in program.jaxpr.eqns:
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda each: isinstance(each, ClosedJaxpr)
        ):
            if isinstance(value, ClosedJaxpr):
                yield from map(np.asarray, value.consts)
                yield from _inner_arrays(value)
