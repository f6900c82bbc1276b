"""The interface of a transition kernel: what the chain driver asks of it, and nothing else.

A kernel draws z from p(z) ∝ exp(g(z)) N(z; 0, I). It is an object of settings until it is bound to
a target, which gives it the tilt g. `tilt_kernel.TiltKernel` does most of the work for kernels that
are written here; `registry.KERNELS` lists the kernels that have a name on the command line.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.kernels.adaptation import Feedback, Tuned
from ppl_cnn.numeric import real, whole

type State = PyTree
"""A kernel's state, of one chain or of several with a leading axis. Only the kernel reads it."""
type Transition = dict[str, Array]
"""Statistic's name -> its value for the last transition."""


@runtime_checkable
class Target(Protocol):
    """A density p(z) ∝ exp(g(z)) N(z; 0, I), z an array; a `TiltedDensity` is one.

    The tilt and the model take the target's parameters (a network's weights) as an argument, so
    that compiled programs need not hold them as constants.
    """

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of z."""
        ...

    @property
    def has_stein_mean(self) -> bool:
        """Whether the mean gradient of g over draws is of use: E[z] = E[grad g], by Stein."""
        ...

    @property
    def whitened(self) -> Callable[..., None]:
        """A NumPyro model of the parameters, whose one site `image_base` is z."""
        ...

    def tilt(self, z: Float[Array, "..."], params: Any = None) -> Float[Array, ""]:
        """g(z), up to a constant the log-density of z relative to N(0, I)."""
        ...


class Ladder(NamedTuple):
    """The rungs of a kernel with replicas, the reference first."""

    strength: Float[Array, "*chain rung"]
    """How much of the tilt each rung's density has, from 0 to 1."""
    step_size: Float[Array, "*chain rung"]
    """Largest step in radians. The reference is drawn anew, as after a quarter turn."""
    angle: Float[Array, "*chain rung"]
    """Length of a trajectory in radians."""


class Statistic(NamedTuple):
    """A number that each transition of a chain reports, as ArviZ's `sample_stats` have them."""

    dtype: type[np.generic]
    """Its type in the store."""
    over: Literal["last", "sum", "any", "mean"] = "last"
    """What a kept draw records of the transitions since the draw before."""


COMMON: Mapping[str, Statistic] = {
    "lp": Statistic(np.float32),  # log-density of z, up to log Z
    "energy": Statistic(np.float32),
    "acceptance_rate": Statistic(np.float32, "mean"),
    "diverging": Statistic(np.bool_, "any"),
    "n_steps": Statistic(np.int32, "sum"),  # gradients
    "step_size": Statistic(np.float32),
}
"""The statistics that every kernel reports."""


class Kernel(ABC):
    """A transition kernel with its settings; `bind` gives it a target.

    Methods that read a state take that of one chain, or of several with a leading axis.
    """

    name: ClassVar[str]
    """Its name on the command line and in records."""
    own_statistics: ClassVar[Mapping[str, Statistic]] = {}
    """The statistics that this kernel reports beside `COMMON`."""
    is_exact: ClassVar[bool] = True
    """Whether the density is invariant; draws of a kernel that isn't exact are reported as such."""
    target_accept_prob: float = 0.8
    """Mean acceptance probability that the step size is adapted to."""

    @classmethod
    def parse(cls, value: str) -> Self:
        """The kernel that the text NAME:VALUE stands for; most have no value.

        Args:
            value: what follows the colon.

        Raises:
            ArgumentError: the kernel takes no value, or not that one.
        """
        raise ArgumentError(
            f"Kernel {cls.name!r} takes no value, but {cls.name + ':' + value!r} was given.",
            argument="kernel",
        )

    def checked_acceptance(self, name: str, value: float) -> float:
        """A mean acceptance probability that the step size can be adapted to.

        Args:
            name: the argument's name.
            value: the probability.

        Raises:
            ArgumentError: it is not between 0 and 1, or not in the kernel's own range.
        """
        return acceptance(name, value)

    @property
    def replicas(self) -> int:
        """How many latents a chain moves at once."""
        return 1

    @property
    def statistics(self) -> Mapping[str, Statistic]:
        """All statistics that a transition reports."""
        return {**COMMON, **self.own_statistics}

    def __str__(self) -> str:
        """The text that records have; settings that affect draws are part of it."""
        return self.name

    def __repr__(self) -> str:
        return f"<kernel {self}>"

    @abstractmethod
    def bind(self, target: Target) -> Self:
        """A kernel of the same settings that draws from a target."""

    def after_warmup(self, warmup: int) -> Self:
        """A kernel that moves as this one does, if it is known how long its warmup is.

        Args:
            warmup: transitions that adapt it.
        """
        return self

    @abstractmethod
    def start(self, key: Array, z: Float[Array, "..."], params: Any) -> State:
        """One chain's first state.

        Args:
            key: the chain's random key.
            z: where the chain starts.
            params: the target's parameters.
        """

    def numbered(self, state: State, chain: Int[Array, ""]) -> State:
        """One chain's first state, for a kernel whose chains differ by their number.

        Args:
            state: the chain's.
            chain: its number in the unit, from 0.
        """
        return state

    @abstractmethod
    def move(self, state: State, params: Any) -> State:
        """One chain's state after another transition, without adaptation.

        Args:
            state: the chain's.
            params: the target's parameters.
        """

    @abstractmethod
    def latent(self, state: State) -> Float[Array, "..."]:
        """Where the chain is: z."""

    @abstractmethod
    def tilt_gradient(self, state: State) -> Float[Array, "..."]:
        """The gradient of g where the chain is."""

    @abstractmethod
    def transition(self, state: State) -> Transition:
        """The `statistics` of the last transition."""

    @abstractmethod
    def feedback(self, state: State) -> Feedback:
        """What the last transition tells the adaptation."""

    @abstractmethod
    def tuned(self, state: State) -> Tuned:
        """Step size, and what else is adapted, that the state moves with."""

    @abstractmethod
    def retuned(self, state: State, tuned: Tuned) -> State:
        """The state with what adaptation has found."""

    def ladder(self, state: State) -> Ladder | None:
        """The rungs of the chain's replicas; None for a kernel without."""
        return None

    def replica_tilts(self, state: State) -> Float[Array, "*chain rung"] | None:
        """g of the chain's replicas, the reference's first; None for a kernel without."""
        return None


def reported(state: Any) -> Transition:
    """The common statistics of a state whose fields have the names of NumPyro's `HMCState`."""
    return {
        "lp": -state.potential_energy,
        "energy": state.energy,
        "acceptance_rate": state.accept_prob,
        "diverging": state.diverging,
        "n_steps": state.num_steps,
        "step_size": state.adapt_state.step_size,
    }


def joined(statistics: Mapping[str, Statistic], first: Transition, later: Transition) -> Transition:
    """The report on two transitions in a row; means are sums until `averaged`.

    Args:
        statistics: how each is joined.
        first: the report before.
        later: the report on the transition that follows.
    """

    def one(over: str, first: Array, later: Array) -> Array:
        if over == "last":
            return later
        return first | later if over == "any" else first + later

    return {name: one(kind.over, first[name], later[name]) for name, kind in statistics.items()}


def averaged(statistics: Mapping[str, Statistic], total: Transition, count: Array) -> Transition:
    """The report on `count` transitions that were `joined`: sums of means become means."""
    return {
        name: total[name] / count if kind.over == "mean" else total[name]
        for name, kind in statistics.items()
    }


def with_settings(name: str, settings: Mapping[str, tuple[object, object]]) -> str:
    """A kernel's text: its name, and the settings that are not the defaults.

    Args:
        name: the kernel's.
        settings: name -> value and default.
    """
    changed = [f"{key}={value}" for key, (value, default) in settings.items() if value != default]
    return f"{name}({', '.join(changed)})" if changed else name


def parsed_count(name: str, value: str, *, what: str, letter: str) -> int:
    """The number in a text NAME:VALUE that counts something, at least 1.

    Args:
        name: the kernel's.
        value: what follows the colon.
        what: what is counted.
        letter: what stands for the number in the error.

    Raises:
        ArgumentError: the value is no positive whole number.
    """
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise ArgumentError(
            f"Kernel {f'{name}:{value}'!r} has no number of {what}. Write {name}:{letter} with "
            f"{letter} at least 1, for example {name}:16.",
            argument="kernel",
        )
    return int(value)


def acceptance(name: str, value: float) -> float:
    """A setting that must be an acceptance probability between 0 and 1, of any library.

    Raises:
        ArgumentError: with the argument's name.
    """
    number = real(name, value)
    if not 0 < number < 1:
        raise ArgumentError(f"`{name}` must be between 0 and 1, not {value}.", argument=name)
    return number


def at_least_one(name: str, value: int) -> int:
    """A setting that must be a whole number from 1 on, of any library.

    Raises:
        ArgumentError: with the argument's name.
    """
    number = whole(name, value)
    if number < 1:
        raise ArgumentError(f"`{name}` must be at least 1, not {value}.", argument=name)
    return number


def zeros_of(transition: Transition) -> Transition:
    """A report on no transition."""
    return {name: jnp.zeros_like(value) for name, value in transition.items()}
