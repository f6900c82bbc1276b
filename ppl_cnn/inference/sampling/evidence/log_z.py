"""Estimates of log Z: thermodynamic integration, reweighting, annealed importance sampling (AIS).

    log Z(T) = log E_q[exp(f/T)] = integral over b from 0 to 1 of E_b[f/T]

where E_b is the mean under the density proportional to exp(b f/T) q. The tempered kernel draws
from such densities on all rungs of its ladder. Annealed importance sampling climbs the same ladder
once, and needs no equilibrium there.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from scipy.optimize import minimize
from scipy.special import logsumexp

from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.inference.importance import Estimate, mean_weight
from ppl_cnn.inference.sampling.evidence.annealing import AnnealingSchedule, climb
from ppl_cnn.machines.spreading import in_turn
from ppl_cnn.models.density import DensityParams, TiltedDensity
from ppl_cnn.numeric import plain, whole
from ppl_cnn.progress import Bar

FEWEST_CHAINS = 4
"""Chains that a standard error, which comes from their differences, needs."""
FEWEST_DRAWS = 4
"""Draws of a chain on each rung, whose variance the estimates take."""
MOST_AT_ONCE = 16
"""Particles that move side by side, at most."""


class Replicas(NamedTuple):
    """The draws of a tempered run on all rungs of its ladder."""

    strengths: Float[np.ndarray, " rung"]
    """b, from 0 to 1."""
    tilts: Float[np.ndarray, "chain draw rung"]
    """g = f/T of each draw."""
    step_sizes: Float[np.ndarray, " rung"]
    """The integrator's step on each rung, in radians."""
    angles: Float[np.ndarray, " rung"]
    """A trajectory's whole turn on each rung, in radians."""

    @classmethod
    def of(cls, tree: xr.DataTree) -> "Replicas":
        """The replicas in a run's draws.

        Args:
            tree: the draws, as `draw` returns or `open_draws` reads them.

        Raises:
            MismatchError: the draws are not the tempered kernel's.
            ArgumentError: there are too few chains, or no draws.
        """
        if "tempering" not in tree.children:
            raise MismatchError(
                "Only draws of the tempered kernel give log Z. Sample with `kernel=tempered`."
            )
        group = tree["tempering"].to_dataset()
        tilts = group["tilt"].values.astype(np.float64)
        if len(tilts) < FEWEST_CHAINS or not tilts.shape[1]:
            raise ArgumentError(
                f"The standard error of log Z needs draws of at least {FEWEST_CHAINS} `chains`, "
                f"not {tilts.shape[1]} draws of {len(tilts)} chains.",
                argument="chains",
            )
        last = group.isel(block=-1)
        names = ("strength", "step_size", "angle")
        strengths, steps, angles = (last[name].values.astype(np.float64) for name in names)
        return cls(strengths, tilts, steps, angles)


def thermodynamic_integration(replicas: Replicas) -> Estimate:
    """Log Z by the trapezoidal rule over the rungs' mean tilts, corrected with their variances.

        log Z = sum over rungs of d/2 (m_r + m_{r+1}) - d^2/12 (v_{r+1} - v_r),  d = b_{r+1} - b_r

    with the mean m_r and the variance v_r of g on rung r; v_r is the derivative of E_b[g] there.
    The error is the standard error of the chains' own estimates.

    Args:
        replicas: of one density, from four chains at least.

    Source: Friel, Hurn, Wyse, Improving power posterior estimation of statistical evidence,
    Statistics and Computing 24, 2014.
    """
    gaps = np.diff(replicas.strengths)

    def integral(tilts: Float[np.ndarray, "draw rung"]) -> float:
        means, variances = tilts.mean(axis=0), tilts.var(axis=0)
        trapezoids = gaps / 2 * (means[:-1] + means[1:])
        return float((trapezoids - gaps**2 / 12 * np.diff(variances)).sum())

    each = np.asarray([integral(tilts) for tilts in replicas.tilts])
    everything = replicas.tilts.reshape(-1, replicas.tilts.shape[-1])
    return Estimate(integral(everything), float(each.std(ddof=1) / np.sqrt(len(each))))


def reweighting(replicas: Replicas) -> Estimate:
    """Log Z from the replicas of all rungs, weighted by the mixture of the rungs' densities (MBAR).

    The error is the jackknife's over chains.

    Args:
        replicas: of one density, from four chains at least.

    Source: Shirts, Chodera, Statistically optimal analysis of samples from multiple equilibrium
    states, J. Chem. Phys. 129, 2008.
    """
    chains = len(replicas.tilts)
    first = np.zeros(len(replicas.strengths))
    whole = _log_normalisers(replicas.tilts, replicas.strengths, first)
    without = np.asarray(
        [
            _log_normalisers(np.delete(replicas.tilts, chain, axis=0), replicas.strengths, whole)
            for chain in range(chains)
        ]
    )[:, -1]
    spread = (chains - 1) * without.var()
    return Estimate(float(whole[-1]), float(np.sqrt(spread)))


def _log_normalisers(
    tilts: Float[np.ndarray, "chain draw rung"],
    strengths: Float[np.ndarray, " rung"],
    first: Float[np.ndarray, " rung"],
) -> Float[np.ndarray, " rung"]:
    """Log Z of each rung's density, with 0 for the reference.

    These F_k minimise the convex function mean_n log sum_k exp(b_k g_n - F_k) + mean_k F_k.

    Args:
        tilts: g of all replicas.
        strengths: b of the rungs.
        first: where the search begins; zeros for the trapezoidal rule's estimate.
    """
    values = tilts.ravel()
    exponents = values[:, None] * strengths[None]

    def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
        normalisers = np.concatenate([[0.0], free])
        logs = exponents - normalisers[None]
        total = logsumexp(logs, axis=1)
        slope = 1 / len(strengths) - np.exp(logs - total[:, None]).mean(axis=0)
        return float(total.mean() + normalisers.mean()), slope[1:]

    # Neighbours differ by about the mean tilt between them, so the search starts close to its end.
    steps = np.diff(strengths) * (tilts.mean((0, 1))[:-1] + tilts.mean((0, 1))[1:]) / 2
    begin = first[1:] if first.any() else np.cumsum(steps)
    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(objective, begin, jac=True, method="L-BFGS-B", options=options)
    return np.concatenate([[0.0], found.x])


def check_counts(**given: int) -> None:
    """Refuses numbers that give no estimate or no standard error, before any work is done.

    Args:
        given: numbers of `chains`, `draws`, `particles` or `temperatures`.

    Raises:
        ArgumentError: there are fewer than 4 chains, 4 draws, 2 particles or 1 temperature, or a
            number is none.
    """
    least = {"chains": FEWEST_CHAINS, "draws": FEWEST_DRAWS, "particles": 2, "temperatures": 1}
    for name, value in given.items():
        if not least[name] <= whole(name, value) < 2**31:
            raise ArgumentError(
                f"`{name}` must be at least {least[name]} and below 2^31, not {value}.",
                argument=name,
            )


class AnnealedEstimate(NamedTuple):
    """Annealed importance sampling's estimate of log Z."""

    log_z: Estimate
    effective: float
    """The effective number of the particles' weights; below about 10 the error means little."""
    gradients: int
    """Gradients that all particles took."""


def annealed_importance_sampling(
    density: TiltedDensity,
    params: DensityParams,
    replicas: Replicas,
    *,
    particles: int,
    temperatures: int,
    seed: int,
    progress: bool = True,
) -> AnnealedEstimate:
    """Log Z by independent particles that climb from the reference to the density.

    Each begins at a draw of the reference and takes one Metropolis-corrected trajectory at each
    strength, with step sizes and angles interpolated between the ladder's rungs. Its log weight is
    the sum of (b_{k+1} - b_k) g(z_k). The mean weight is an unbiased estimate of Z.

    Args:
        density: the target, or one with the same program, for which functions are compiled.
        params: the density's weights.
        replicas: of a tempered run of the density; the strengths are interpolated from its rungs.
        particles: how many climb, at least 2.
        temperatures: strengths above the reference, at least 1.
        seed: the particles'.
        progress: whether to show a bar, once it takes more than two seconds.

    Raises:
        ArgumentError: there are too few particles or temperatures.

    Source: Neal, Annealed importance sampling, Statistics and Computing 11, 2001.
    """
    check_counts(particles=particles, temperatures=temperatures)
    particles, temperatures = whole("particles", particles), whole("temperatures", temperatures)
    place = np.linspace(0, len(replicas.strengths) - 1, temperatures + 1)
    rungs = np.arange(len(replicas.strengths))
    between = partial(np.interp, place, rungs)
    steps, angles = (
        np.exp(between(np.log(values)))[1:] for values in (replicas.step_sizes, replicas.angles)
    )
    schedule = AnnealingSchedule(np.asarray(between(replicas.strengths)), steps, angles)
    keys = jax.random.split(jax.random.key(plain(seed)), particles)
    part = max(size for size in range(1, MOST_AT_ONCE + 1) if particles % size == 0)
    batches = keys.reshape(-1, part)
    form = {"unit": "batch", "delay": 2, "leave": False, "disable": not progress}
    with Bar(total=len(batches), desc="annealing", **form) as bar:

        def climbed(each: Array) -> tuple[np.ndarray, int]:
            end, count = climb(density, params, each, schedule)
            bar.update(1)
            return np.asarray(end.logs, np.float64), count

        logs, counts = zip(*in_turn(climbed, batches), strict=True)
    return AnnealedEstimate(*mean_weight(np.concatenate(logs)), sum(map(int, counts)))


class LogZ(NamedTuple):
    """Three estimates of one density's log Z, which must agree."""

    integrated: Estimate
    """By thermodynamic integration."""
    reweighted: Estimate
    """By reweighting (MBAR)."""
    annealed: AnnealedEstimate
    """By annealed importance sampling."""

    @property
    def best(self) -> Estimate:
        """The estimate to use, that by reweighting, which takes most from the draws."""
        return self.reweighted

    @property
    def agree(self) -> bool:
        """Whether integration and annealing are within three joint standard errors."""
        one, other = self.integrated, self.annealed.log_z
        return abs(one.value - other.value) <= 3 * math.hypot(one.error, other.error)

    def record(self) -> dict[str, Any]:
        """The estimates as JSON."""
        return {
            "thermodynamic integration": self.integrated._asdict(),
            "reweighting": self.reweighted._asdict(),
            "annealed importance sampling": {
                **self.annealed.log_z._asdict(),
                "effective": self.annealed.effective,
                "gradients": self.annealed.gradients,
            },
        }


class MeanWeight(NamedTuple):
    """Log Z under the images of a data set: the log of the mean of exp(f/T) over them.

    The mean is exact. The standard error is that of the images as a sample of all such images.
    """

    log_z: Estimate
    effective: float
    """The effective number of the weights."""
    images: int
    """How many images there are."""

    @property
    def best(self) -> Estimate:
        """The mean, the only estimate."""
        return self.log_z

    def record(self) -> dict[str, Any]:
        """The estimate as JSON."""
        others = {"effective": self.effective, "images": self.images}
        return {"mean over images": {**self.log_z._asdict(), **others}}


def class_offsets(found: Mapping[str, LogZ] | Mapping[str, MeanWeight]) -> dict[str, float]:
    """Class -> alpha = -log Z - log C, for C classes of equal prior probability.

    With these offsets, softmax(f + alpha) is the posterior of the classes whose images the tilted
    densities draw.

    Args:
        found: class -> log Z of its density; the estimate taken is the `best`.
    """
    return {name: -each.best.value - math.log(len(found)) for name, each in found.items()}
