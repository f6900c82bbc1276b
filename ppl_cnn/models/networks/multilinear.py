"""Multilinear maps whose transposes we write ourselves, differentiable in any mode and order.

A multilinear form F(a, b, ...) is a scalar that is linear in each of its arrays. Its derivative
with respect to one of them is a function of the others: with F(x, w, g) = <g, x * w>, where * is a
convolution, dF/dg is the convolution itself, dF/dx its gradient for the input and dF/dw that for
the kernel. The three are one another's transposes, and each is bilinear. A form that computes its
derivatives fast is therefore fast in reverse mode, in forward mode and in both combined, where
`jax.custom_vjp` offers reverse mode alone and once.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

type Level = tuple[bool, ...]
"""Which operands have the axis that one `jax.vmap` added in front."""


class Form(ABC):
    """A multilinear form of arrays of fixed shapes, and of constants that nobody differentiates.

    Forms are hashable; equal forms have equal derivatives.
    """

    slots: ClassVar[int]
    """The number of arrays that it is linear in."""

    @abstractmethod
    def derivative(self, slot: int, *operands: Array) -> Array:
        """The form's derivative with respect to the array in a slot.

        Args:
            slot: 0 to `slots` - 1.
            operands: the arrays of all other slots in order, then the constants.
        """


def derivative(form: Form, slot: int, *operands: Array) -> Array:
    """`form.derivative(slot, *operands)`, differentiated by the form's other derivatives.

    It works under `jit`, `vmap`, `grad`, `jvp` and any composition of them. Constants have no
    gradient.
    """
    return _bind(operands, form, slot, ())


def _bind(operands: Sequence[Any], form: Form, slot: int, levels: tuple[Level, ...]) -> Array:
    result = _primitive.bind(*operands, form=form, slot=slot, levels=levels)
    return cast(Array, result)


def _compute(*operands: Array, form: Form, slot: int, levels: tuple[Level, ...]) -> Array:
    """The derivative, mapped over the levels, of which the first is the outermost."""
    function = partial(form.derivative, slot)
    for level in reversed(levels):
        function = jax.vmap(function, tuple(0 if has else None for has in level))
    return function(*operands)


def _abstract(*operands: Any, form: Form, slot: int, levels: tuple[Level, ...]) -> Any:
    kinds = tuple((each.shape, each.dtype) for each in operands)
    return _result(kinds, form, slot, levels)


@lru_cache(1024)
def _result(
    kinds: tuple[tuple[tuple[int, ...], Any], ...], form: Form, slot: int, levels: tuple[Level, ...]
) -> Any:
    compute = partial(_compute, form=form, slot=slot, levels=levels)
    result = jax.eval_shape(compute, *(jax.ShapeDtypeStruct(*kind) for kind in kinds))
    return jax.core.ShapedArray(result.shape, result.dtype)


def _jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, form: Form, slot: int, **others: Any
) -> tuple[Any, Any]:
    value = _bind(primals, form, slot, **others)
    change = ad.Zero(jax.typeof(value).to_tangent_aval())
    for index, tangent in enumerate(tangents[: form.slots - 1]):
        if type(tangent) is not ad.Zero:
            moved = (*primals[:index], tangent, *primals[index + 1 :])
            change = ad.add_tangents(change, _bind(moved, form, slot, **others))
    return value, change


def _transpose(
    cotangent: Any, *operands: Any, form: Form, slot: int, levels: tuple[Level, ...]
) -> list[Any]:
    """The cotangent takes the place of the derivative's slot, and the unknown operand gives it."""
    (at,) = [index for index, each in enumerate(operands) if ad.is_undefined_primal(each)]
    result: list[Any] = [None] * len(operands)
    if type(cotangent) is ad.Zero:
        result[at] = ad.Zero(operands[at].aval)
        return result
    wanted = at + (at >= slot)

    def replaced(values: Sequence[Any], own: Any) -> tuple[Any, ...]:
        slots = [*values[:slot], own, *values[slot:]]
        return (*slots[:wanted], *slots[wanted + 1 :])

    mapped = tuple(replaced(level, True) for level in levels)
    gradient = _bind(replaced(operands, cotangent), form, wanted, mapped)
    shared = tuple(axis for axis, level in enumerate(levels) if not level[at])
    result[at] = jnp.sum(gradient, shared) if shared else gradient
    return result


def _batch(
    operands: Sequence[Any],
    axes: Sequence[int | None],
    *,
    levels: tuple[Level, ...],
    **others: Any,
) -> tuple[Array, int]:
    front = [
        each if axis is None else jnp.moveaxis(each, axis, 0)
        for each, axis in zip(operands, axes, strict=True)
    ]
    level = tuple(axis is not None for axis in axes)
    return _bind(front, levels=(level, *levels), **others), 0


_primitive = Primitive("multilinear")
# Outside of jit it is one compiled operation, not the dozens that some derivatives consist of.
_primitive.def_impl(jax.jit(_compute, static_argnames=("form", "slot", "levels")))
_primitive.def_abstract_eval(_abstract)
ad.primitive_jvps[_primitive] = _jvp
ad.primitive_transposes[_primitive] = _transpose
batching.primitive_batchers[_primitive] = _batch
mlir.register_lowering(_primitive, mlir.lower_fun(_compute, multiple_results=False))
