"""Log Z of tilted densities: thermodynamic integration and reweighting of replicas, and AIS.

    log Z(T) = log E_q[exp(f/T)] = integral over b from 0 to 1 of E_b[f/T]

where E_b is the mean under the density proportional to exp(b f/T) q. The tempered kernel draws
from such densities on all rungs of its ladder; annealed importance sampling goes up the same
ladder once, and needs no equilibrium there.
"""

import math
from collections.abc import Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import logsumexp
from tqdm import tqdm

from ppl_cnn.errors import InputError
from ppl_cnn.inference.runs.record import unit_folder
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.annealing import Estimate, Ladder, climb, mean_weight
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.networks.graph import Params

FEWEST_CHAINS = 4
"""Standard errors come from the differences between chains."""
MOST_AT_ONCE = 16
"""Particles that move side by side."""


class Replicas(NamedTuple):
    """What a tempered run has drawn on its rungs."""

    strengths: Float[np.ndarray, " rung"]
    """b, from 0 to 1."""
    tilts: Float[np.ndarray, "chain draw rung"]
    """g = f/T."""
    step_sizes: Float[np.ndarray, " rung"]
    angles: Float[np.ndarray, " rung"]

    @classmethod
    def of(cls, tree: xr.DataTree) -> "Replicas":
        """From a run's draws.

        Raises:
            InputError: they aren't of the tempered kernel, or of too few chains.
        """
        if "tempering" not in tree.children:
            raise InputError("Only draws of the tempered kernel have replicas to estimate Z from.")
        group = tree["tempering"].to_dataset()
        tilts = group["tilt"].values.astype(np.float64)
        if len(tilts) < FEWEST_CHAINS or not tilts.shape[1]:
            raise InputError(
                f"An estimate of Z needs draws of at least {FEWEST_CHAINS} chains, which its "
                f"standard error comes from, not {len(tilts)} of {tilts.shape[1]} draws."
            )
        last = group.isel(block=-1)
        names = ("strength", "step_size", "angle")
        strengths, steps, angles = (last[name].values.astype(np.float64) for name in names)
        return cls(strengths, tilts, steps, angles)


def thermodynamic_integration(replicas: Replicas) -> Estimate:
    """Log Z by the trapezoidal rule, corrected with the variances, which are E_b[g]'s derivative.

        log Z = sum over rungs of d/2 (m_r + m_{r+1}) - d^2/12 (v_{r+1} - v_r),  d = b_{r+1} - b_r

    The error is that of the chains' own estimates. Source: Friel, Hurn, Wyse, Improving power
    posterior estimation of statistical evidence, Statistics and Computing 24, 2014.
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
    """Log Z from all replicas of all rungs, each weighted by the mixture of the rungs' densities.

    The error is the jackknife's over chains. Source: Shirts, Chodera, Statistically optimal
    analysis of samples from multiple equilibrium states, J. Chem. Phys. 129, 2008 (MBAR).
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
    """Log Z of each rung's density, from where a search begins; the reference's is 0.

    They are where the convex function mean_n log sum_k exp(b_k g_n - F_k) + mean_k F_k is least.
    """
    values = tilts.ravel()
    exponents = values[:, None] * strengths[None]

    def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
        normalisers = np.concatenate([[0.0], free])
        logs = exponents - normalisers[None]
        total = logsumexp(logs, axis=1)
        slope = 1 / len(strengths) - np.exp(logs - total[:, None]).mean(axis=0)
        return float(total.mean() + normalisers.mean()), slope[1:]

    # Neighbours differ by about the mean tilt there; in those differences the search is quick.
    steps = np.diff(strengths) * (tilts.mean((0, 1))[:-1] + tilts.mean((0, 1))[1:]) / 2
    begin = first[1:] if first.any() else np.cumsum(steps)
    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(objective, begin, jac=True, method="L-BFGS-B", options=options)
    return np.concatenate([[0.0], found.x])


class Annealed(NamedTuple):
    """Annealed importance sampling's estimate."""

    log_z: Estimate
    effective: float
    """Effective number of the particles' weights; the error is no use below about 10."""
    gradients: int


def annealed_importance_sampling(
    density: TiltedDensity,
    params: Params,
    replicas: Replicas,
    particles: int,
    temperatures: int,
    seed: int,
) -> Annealed:
    """Log Z by particles that go up the ladder.

    Each begins at a draw of the reference and moves by one Metropolis-corrected trajectory at
    each of the strengths between, with step sizes and angles that the ladder's rungs had. Its
    log weight is the sum of (b_{k+1} - b_k) g(z_k); the mean weight is an unbiased estimate of Z.

    Args:
        density: of whose program the unit is; what was compiled for one serves all.
        params: the unit's weights.
        replicas: of a tempered run of it, that the strengths are interpolated from.
        particles: independent ones.
        temperatures: strengths above the reference.
        seed: of the particles.

    Source: Neal, Annealed importance sampling, Statistics and Computing 11, 2001.
    """
    if particles < 2 or temperatures < 1:
        raise InputError(
            f"Annealed importance sampling needs at least 2 particles and 1 temperature, not "
            f"{particles} and {temperatures}."
        )
    place = np.linspace(0, len(replicas.strengths) - 1, temperatures + 1)
    rungs = np.arange(len(replicas.strengths))
    between = partial(np.interp, place, rungs)
    steps, angles = (
        np.exp(between(np.log(values)))[1:] for values in (replicas.step_sizes, replicas.angles)
    )
    ladder = Ladder(np.asarray(between(replicas.strengths)), steps, angles)
    keys = jax.random.split(jax.random.key(seed), particles)
    part = max(size for size in range(1, MOST_AT_ONCE + 1) if particles % size == 0)
    found, gradients = [], 0
    for each in tqdm(keys.reshape(-1, part), "annealing", unit="batch", delay=2, leave=False):
        end, count = climb(density, params, each, ladder)
        found.append(np.asarray(end.logs, np.float64))
        gradients += count
    return Annealed(*mean_weight(np.concatenate(found)), gradients)


class Estimates(NamedTuple):
    """Of one density's log Z."""

    integrated: Estimate
    reweighted: Estimate
    annealed: Annealed

    @property
    def agree(self) -> bool:
        """Whether integration and annealing are within three joint standard errors."""
        one, other = self.integrated, self.annealed.log_z
        return abs(one.value - other.value) <= 3 * math.hypot(one.error, other.error)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "thermodynamic integration": self.integrated._asdict(),
            "reweighting": self.reweighted._asdict(),
            "annealed importance sampling": {
                **self.annealed.log_z._asdict(),
                "effective": self.annealed.effective,
                "gradients": self.annealed.gradients,
            },
        }


def estimates(
    out: Path, densities: Sequence[TiltedDensity], particles: int, temperatures: int, seed: int
) -> dict[str, Estimates]:
    """Unit -> log Z of its density, from a tempered run's folder.

    Args:
        out: the run's folder.
        densities: of the run.
        particles: of annealed importance sampling.
        temperatures: that each goes through.
        seed: of the particles.

    Raises:
        InputError: the run is of another kernel, or has too few chains.
    """
    found = {}
    like: dict[Hashable, TiltedDensity] = {}
    for density in densities:
        same = like.setdefault(density.unit.program, density)
        folder = out / unit_folder(str(density.unit)) if len(densities) > 1 else out
        replicas = Replicas.of(open_draws(folder / "draws.zarr"))
        found[str(density.unit)] = Estimates(
            thermodynamic_integration(replicas),
            reweighting(replicas),
            annealed_importance_sampling(
                same, density.unit.params, replicas, particles, temperatures, seed
            ),
        )
    return found
