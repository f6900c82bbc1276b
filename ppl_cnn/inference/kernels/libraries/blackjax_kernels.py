"""blackjax's kernels as kernels of the chain driver; blackjax itself is optional."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ppl_cnn.errors import ArgumentError, unknown
from ppl_cnn.inference.kernels.adaptation import Tuned
from ppl_cnn.inference.kernels.kernel import Statistic
from ppl_cnn.inference.kernels.libraries.foreign import Foreign, ForeignKernel
from ppl_cnn.inference.kernels.libraries.numpyro_kernels import QUARTER, gaussian_step_size


class Densities(NamedTuple):
    """What a kernel of blackjax may ask for: densities as functions of a flat z, and a step."""

    tilt: Callable[[Array], Array]
    """g, the log-density relative to N(0, I)."""
    log_density: Callable[[Array], Array]
    """g(z) - |z|^2/2."""
    dimensions: int
    step: Array


class Sampler(NamedTuple):
    """How a kernel of blackjax is made and tuned."""

    make: Callable[[Any, Densities], Any]
    """A function of the library and the densities to a `SamplingAlgorithm`."""
    target: float
    """Mean acceptance probability that suits it, as its authors say."""
    first: Callable[[int], float]
    """Number of dimensions -> the first step."""
    longest: float = math.inf
    """Largest step."""
    sees_tilt: bool = False
    """Whether its log-density is g, as it knows N(0, I) by itself."""
    steps: bool = True
    """Whether it has a step size."""


class _Identity:
    """The identity as a matrix, without its entries."""

    def __matmul__(self, vector: Array) -> Array:
        return vector


def _mgrad(library: Any, of: Densities) -> Any:
    whole = library.mcmc.marginal_latent_gaussian.CovarianceSVD(
        _Identity(), jnp.ones(of.dimensions), _Identity()
    )
    return library.mgrad_gaussian(of.tilt, cov_svd=whole, step_size=of.step)


def _elliptical(library: Any, of: Densities) -> Any:
    zero, one = jnp.zeros(of.dimensions), jnp.ones(of.dimensions)
    return library.elliptical_slice(of.tilt, mean=zero, cov=one)


def _hmc(library: Any, of: Densities) -> Any:
    steps = max(1, round(QUARTER / gaussian_step_size(of.dimensions)))
    return library.hmc(of.log_density, of.step, jnp.ones(of.dimensions), steps)


BLACKJAX = {
    "mgrad_gaussian": Sampler(_mgrad, 0.5, lambda d: 1.0, 1e4, sees_tilt=True),
    "elliptical_slice": Sampler(_elliptical, 0.5, lambda d: 1.0, sees_tilt=True, steps=False),
    "mala": Sampler(
        lambda library, of: library.mala(of.log_density, of.step), 0.574, lambda d: d ** (-1 / 3)
    ),
    "barker": Sampler(
        lambda library, of: library.barker(of.log_density, of.step), 0.4, lambda d: d ** (-1 / 6)
    ),
    "hmc": Sampler(_hmc, 0.8, gaussian_step_size),
    "nuts": Sampler(
        lambda library, of: library.nuts(of.log_density, of.step, jnp.ones(of.dimensions)),
        0.8,
        gaussian_step_size,
    ),
}
"""Name in blackjax's top-level API -> the kernel. `mgrad_gaussian` is the auxiliary gradient
sampler of Titsias and Papaspiliopoulos 2018, a relative of pCNL; `hmc` takes as many leapfrogs as
make a quarter turn at the step that suits the Gaussian."""


class BlackJAX(ForeignKernel):
    """A kernel of blackjax, as a kernel of `ppl_cnn.draw`.

    Args:
        sampler: its name in blackjax, one of `BLACKJAX`. `mgrad_gaussian` and `elliptical_slice`
            know the reference N(0, I) as `Split` does.
        target_accept_prob: mean acceptance probability that the step size is adapted to; by default
            what its authors advise.

    Raises:
        UnknownNameError: there is no such kernel.
        ArgumentError: blackjax is not installed, or a setting is out of range.

    Examples:
        >>> print(BlackJAX("mala"))
        blackjax:mala
    """

    name = "blackjax"

    def __init__(self, sampler: str, *, target_accept_prob: float | None = None) -> None:
        if sampler not in BLACKJAX:
            raise unknown("kernel of blackjax", sampler, tuple(BLACKJAX))
        try:
            import blackjax
        except ImportError:
            raise ArgumentError(
                f"Kernel 'blackjax:{sampler}' needs blackjax, which is not installed. Install "
                f"ppl_cnn[blackjax].",
                argument="kernel",
            ) from None
        self._library, self._name, self._sampler = blackjax, sampler, BLACKJAX[sampler]
        wanted = self._sampler.target if target_accept_prob is None else target_accept_prob
        self.target_accept_prob = self.checked_acceptance("target_accept_prob", wanted)

    @classmethod
    def parse(cls, value: str) -> Self:
        """The kernel of that name in blackjax."""
        return cls(value)

    def __str__(self) -> str:
        return f"{self.name}:{self._name}"

    @property
    def statistics(self) -> Mapping[str, Statistic]:
        """All statistics that a transition reports; a kernel without a step counts passes."""
        passes = {} if self._sampler.steps else {"forward_passes": Statistic(np.int32, "sum")}
        return {**super().statistics, **passes}

    def _densities(self, params: Any, step: Array) -> Densities:
        shape = self.target.latent_shape

        def tilt(flat: Array) -> Array:
            return self.target.tilt(flat.reshape(shape), params)

        return Densities(
            tilt, lambda flat: tilt(flat) - flat @ flat / 2, math.prod(shape), jnp.asarray(step)
        )

    def start(self, key: Array, z: Float[Array, "..."], params: Any) -> Foreign:
        """One chain's first state."""
        step = jnp.asarray(self._sampler.first(z.size), jnp.float32)
        of = self._densities(params, step)
        inner = self._sampler.make(self._library, of).init(z.ravel())
        return self._read(inner, None, of, step, key)

    def move(self, state: Foreign, params: Any) -> Foreign:
        """One chain's state after another transition, without adaptation."""
        key, key_move = jax.random.split(state.rng_key)
        step = jnp.minimum(state.adapt_state.step_size, self._sampler.longest)
        of = self._densities(params, step)
        inner, info = self._sampler.make(self._library, of).step(key_move, state.inner)
        return self._read(inner, info, of, step, key)

    def retuned(self, state: Foreign, tuned: Tuned) -> Foreign:
        """The state with another step size, if the kernel has one."""
        return super().retuned(state, tuned) if self._sampler.steps else state

    def _read(self, inner: Any, info: Any, of: Densities, step: Array, key: Array) -> Foreign:
        """The chain, from blackjax's state and its information on the last transition."""
        flat, log_density = inner.position, inner.logdensity
        log_density = log_density - flat @ flat / 2 if self._sampler.sees_tilt else log_density
        constant = of.dimensions / 2 * math.log(2 * math.pi)
        potential = constant - log_density
        energy = constant + getattr(info, "energy", -log_density)
        if hasattr(inner, "logdensity_grad"):
            gradient = inner.logdensity_grad + (0.0 if self._sampler.sees_tilt else flat)
        else:
            gradient = jax.grad(of.tilt)(flat)
        shape, moved = self.target.latent_shape, int(info is not None)
        return Foreign(
            inner=inner,
            z=flat.reshape(shape),
            tilt_grad=gradient.reshape(shape),
            potential_energy=potential,
            energy=jnp.where(jnp.isfinite(energy), energy, potential),
            accept_prob=jnp.nan_to_num(getattr(info, "acceptance_rate", jnp.ones(()))),
            num_steps=jnp.asarray(getattr(info, "num_integration_steps", moved), jnp.int32),
            forward_passes=jnp.asarray(getattr(info, "subiter", 0), jnp.int32),
            diverging=jnp.asarray(getattr(info, "is_divergent", False)),
            adapt_state=Tuned(step),
            rng_key=key,
        )
