"""Smooth relatives of tilts, whose gradients long steps can follow.

The kinks of ReLU and max-pooling limit a trajectory's step: its energy error grows like the step,
not like its square. Kicks may follow any function of z and still leave the density invariant. So
they may follow the gradient of a relative of the tilt in which every kink is rounded off over a
width; Metropolis decides by the tilt itself.

Each kink has a width of its own: a common one times the root mean square of what it compares.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, Literal
from jaxtyping import Array, Float, Int

from ppl_cnn.inference.kernels.moves.trajectory import (
    Latent,
    Point,
    Proposal,
    Tilt,
    Trajectory,
    decided,
    normal_like,
    rotated,
    stepped,
)
from ppl_cnn.inference.kernels.softness import Softness


class SoftProposal(NamedTuple):
    """A trajectory that follows a softened force, or the exact one, and Metropolis's decision."""

    moved: Proposal
    """With the gradient that is held where the force is softened: nobody has taken that of g."""
    gap: Float[Array, ""]
    """Absolute change of g_w - g from the start to the end; 0 where it isn't measured."""
    squares: Float[Array, " kink"]
    """Mean square of what each kink compares, at the end; 0 where the force is the exact one."""
    passes: Int[Array, ""]
    """Forward passes beside the gradients."""


def soft_metropolis(
    tilt: Tilt,
    start: Point,
    key: Array,
    step_size: Float[Array, ""],
    steps: Int[Array, ""],
    softness: Softness,
) -> SoftProposal:
    """A trajectory with fresh momentum, accepted or rejected; N(0, I) exp(g) is invariant.

    Args:
        tilt: g.
        start: where the chain is; with the gradient there if the force is the exact one.
        key: random key of the momentum and the decision.
        step_size: radians between kicks.
        steps: number of kicks.
        softness: the force.
    """
    key_momentum, key_accept = jax.random.split(key)
    momentum = normal_like(key_momentum, start.z)
    soft = softness.width > 0
    end = _followed(tilt, start, momentum, step_size, steps, softness)
    reached = end.point

    def measure(index: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        z = jax.tree.map(partial(jnp.where, index == 2), start.z, reached.z)
        value, squares = _relative(tilt, z, jnp.where(index == 0, 0.0, softness.widths))
        return found[0].at[index].set(value), jnp.where(index == 0, squares, found[1])

    # g and g_w at the end, and g_w at the start; without a softened force, nothing is missing.
    passes = jnp.where(soft, 1 + 2 * softness.tried, 0)
    none = jnp.zeros(3), jnp.zeros_like(softness.sizes)
    (exact, wide, wide_before), squares = jax.lax.fori_loop(0, passes, measure, none)
    change = end.energy_change - jnp.where(soft, exact - reached.tilt, 0.0)
    reached = reached._replace(tilt=jnp.where(soft, exact, reached.tilt))
    moved = decided(start, momentum, end._replace(point=reached, energy_change=change), key_accept)
    held = jax.tree.map(partial(jnp.where, soft), start.tilt_grad, moved.point.tilt_grad)
    gap = jnp.abs((wide - exact) - (wide_before - start.tilt))
    # No number counts as too wide.
    gap = jnp.where(jnp.isnan(gap), jnp.inf, gap)
    return SoftProposal(
        moved._replace(point=moved.point._replace(tilt_grad=held)),
        jnp.where(passes > 1, gap, 0.0),
        squares,
        passes,
    )


def _followed(
    tilt: Tilt,
    point: Point,
    momentum: Latent,
    step_size: Float[Array, ""],
    steps: Int[Array, ""],
    softness: Softness,
) -> Trajectory:
    """The end of a trajectory; where the force is softened, with the tilt at its last kick.

    The exact force kicks before and after each turn, as `trajectory.integrate` has it, since the
    gradient at the start is known. A softened one kicks in the middle of each turn, by 2 sin(h/2)
    times the gradient, which is without error for a linear tilt too: it need not be known at the
    ends, so that widths may change from one trajectory to the next. One loop has both, so that a
    program holds the gradient once.
    """
    soft, half = softness.width > 0, step_size / 2
    around = jnp.tan(half)
    before, after = jnp.where(soft, 0.0, around), jnp.where(soft, 2 * jnp.sin(half), around)
    turn = jnp.cos(step_size), jnp.sin(step_size)
    # Half a turn back at first, and half a turn at last, put the kicks amid the turns.
    cos, sin = jnp.where(soft, jnp.cos(half), 1.0), jnp.where(soft, jnp.sin(half), 0.0)

    smooth = softened(tilt, softness.widths)

    def step(_: Array, at: Trajectory) -> Trajectory:
        return stepped(smooth, at, before, turn, after)

    z, p = rotated(point.z, momentum, (cos, -sin))
    start = Trajectory(point._replace(z=z), p, jnp.zeros_like(point.tilt))
    end: Trajectory = jax.lax.fori_loop(0, steps, step, start)
    z, p = rotated(end.point.z, end.momentum, (cos, sin))
    return end._replace(point=end.point._replace(z=z), momentum=p)


def softened(tilt: Tilt, widths: Float[Array, " kink"]) -> Tilt:
    """The smooth relative of a tilt, a function of z.

    Maxima, minima, clips and max-pooling are rounded off wherever the tilt's program has them, also
    within functions that are compiled, recomputed or have a forward derivative of their own, as
    `jax.nn.relu` has. Kinks of other operations (a leaky ReLU, an absolute value), and those within
    loops, conditions and functions that have a reverse derivative of their own, stay.

    Args:
        tilt: g.
        widths: of the kinks, in the order of the tilt's program; 0 leaves them sharp.
    """
    return lambda z: _relative(tilt, z, widths)[0]


def kinks(tilt: Tilt, z: Latent) -> int:
    """The number of kinks of a tilt's program that `softened` rounds off.

    Args:
        tilt: g.
        z: a latent.
    """
    _, squares = jax.eval_shape(lambda z: _relative(tilt, z, None), z)
    return len(squares)


def _relative(
    tilt: Tilt, z: Latent, widths: Float[Array, " kink"] | None
) -> tuple[Float[Array, ""], Float[Array, " kink"]]:
    """The relative with these widths, and the mean square of what each kink compares."""
    program, maximum = jax.make_jaxpr(tilt)(z), _Maximum(widths)
    (value,) = _evaluated(program.jaxpr, program.consts, jax.tree.leaves(z), maximum)
    return value, jnp.stack(maximum.squares) if maximum.squares else jnp.zeros(0)


def _evaluated(
    jaxpr: Jaxpr, consts: Sequence[Any], operands: Sequence[Any], maximum: "_Maximum"
) -> list[Any]:
    """The results of a program whose kinks are rounded off."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *operands], strict=True))

    def read(atom: Any) -> Any:
        is_number = isinstance(atom, Literal)
        return jnp.asarray(atom.val, atom.aval.dtype) if is_number else values[atom]

    for eqn in jaxpr.eqns:
        given = [read(atom) for atom in eqn.invars]
        if _is_kink(eqn):
            results = [_SMOOTH[eqn.primitive.name](maximum, *given, **eqn.params)]
        elif (inner := _inlined(eqn)) is not None:
            results = _evaluated(*inner, given, maximum)
        else:
            results = _bound(eqn, given)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bound(eqn: Any, given: list[Any]) -> list[Any]:
    """An equation's results as they are."""
    parameters = eqn.primitive.get_bind_params(eqn.params)
    # Before JAX 0.12, functions among the parameters came apart from them.
    functions, parameters = parameters if isinstance(parameters, tuple) else ((), parameters)
    results = eqn.primitive.bind(*functions, *given, **parameters)
    return list(results) if eqn.primitive.multiple_results else [results]


_INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
"""Operations that only call a program, and the parameter that holds it."""


def _inlined(eqn: Any) -> tuple[Jaxpr, Sequence[Any]] | None:
    """The program that an equation calls and its constants; None if it calls none."""
    name = _INLINED.get(eqn.primitive.name)
    if name is None:
        return None
    program = eqn.params[name]
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


def _is_kink(eqn: Any) -> bool:
    return eqn.primitive.name in _SMOOTH and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating)


# Smooth relatives


class _Maximum:
    """The larger of two arrays of one shape, or of an array and a number, rounded off.

    Args:
        widths: of the kinks, in the order of the calls; without, all are sharp.
    """

    def __init__(self, widths: Float[Array, " kink"] | None) -> None:
        self._widths = widths
        self.squares: list[Array] = []
        """The mean square of what each call has compared."""

    def __call__(self, a: Any, b: Any) -> Array:
        a, b = jnp.broadcast_arrays(a, b)
        own = jnp.zeros(()) if self._widths is None else self._widths[len(self.squares)]
        apart = lax.stop_gradient(a - b).astype(jnp.float32)
        # The padding of max-pooling is infinitely far from everything, and counts as 0.
        self.squares.append(jnp.mean(jnp.where(jnp.isfinite(apart), apart**2, 0.0)))
        return _rounded(a, b, jnp.broadcast_to(own.astype(a.dtype), a.shape))


@jax.custom_jvp
def _rounded(a: Array, b: Array, width: Array) -> Array:
    """max(a, b), as b + r(a - b) with r(x) = (x + w)^2 / 4w where |x| < w, and max(x, 0) beyond."""
    apart = jnp.abs(a - b)
    within = apart < width
    return jnp.maximum(a, b) + jnp.where(
        within, (width - apart) ** 2 / (4 * jnp.where(within, width, 1)), 0
    )


@_rounded.defjvp
def _rounded_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Any, Any, Any]
) -> tuple[Array, Array]:
    a, b, width = primals
    # No number, 0/0 or the difference of two infinities, stands for a tie.
    share = jnp.nan_to_num((a - b) / width, nan=0.0)
    share = jnp.clip((1 + share) / 2, 0, 1)
    return _rounded(*primals), share * tangents[0] + (1 - share) * tangents[1]


def _smooth_max(maximum: _Maximum, a: Array, b: Array, **_: Any) -> Array:
    return maximum(a, b)


def _smooth_min(maximum: _Maximum, a: Array, b: Array, **_: Any) -> Array:
    return -maximum(-a, -b)


def _smooth_clamp(maximum: _Maximum, low: Array, x: Array, high: Array, **_: Any) -> Array:
    return _smooth_min(maximum, _smooth_max(maximum, x, low), high)


def _smooth_pool(
    maximum: _Maximum,
    x: Array,
    *,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    base_dilation: Sequence[int],
    window_dilation: Sequence[int],
) -> Array:
    """The maximum over windows, one axis after the other, of shifted arrays."""
    spread = [(*pads, hole - 1) for pads, hole in zip(padding, base_dilation, strict=True)]
    x = lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), spread)
    windows = zip(window_dimensions, window_strides, window_dilation, strict=True)
    for axis, (size, stride, hole) in enumerate(windows):
        stop = x.shape[axis] - (size - 1) * hole
        places = range(0, size * hole, hole)
        shifted = [lax.slice_in_dim(x, at, at + stop, stride, axis) for at in places]
        x = reduce(maximum, shifted)
    return x


_SMOOTH: Mapping[str, Callable[..., Array]] = {
    "max": _smooth_max,
    "min": _smooth_min,
    "clamp": _smooth_clamp,
    "reduce_window_max": _smooth_pool,
}
"""Operations with kinks, and their smooth relatives."""
