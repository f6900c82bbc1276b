"""The precision of networks and of runs: float32, also where JAX's 64-bit mode is on."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jax import Array

_NARROWER = {"float64": "float32", "int64": "int32", "uint64": "uint32"}


def single(x: "Array") -> "Array":
    """The array in 32 bits if its numbers have 64, or else itself."""
    return x.astype(_NARROWER[x.dtype.name]) if x.dtype.name in _NARROWER else x


def in_float32[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The function, run as if JAX's 64-bit mode were off.

    Weights, stored draws and compiled programs are float32, so that a run has the same bits in
    both modes (`JAX_ENABLE_X64=1`, `numpyro.enable_x64()`).
    """

    @wraps(function)
    def alike(*args: P.args, **kwargs: P.kwargs) -> R:
        import jax

        if not jax.config.read("jax_enable_x64"):
            return function(*args, **kwargs)
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return alike
