"""Evidence: log Z of tilted densities, from a tempered run of them or as a mean over images."""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ppl_cnn.files import write_aside
from ppl_cnn.inference.importance import mean_weight
from ppl_cnn.inference.kernels.tempered import Tempered
from ppl_cnn.inference.runs.record import unit_folder
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.driver import Origin, check_one_run, sample_to
from ppl_cnn.inference.sampling.evidence.log_z import (
    LogZ,
    MeanWeight,
    Replicas,
    annealed_importance_sampling,
    check_counts,
    reweighting,
    thermodynamic_integration,
)
from ppl_cnn.inference.sampling.resampling.proposals import Pictures
from ppl_cnn.inference.sampling.resampling.scorer import Scorer
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.shared_folder import claimed
from ppl_cnn.machines.arithmetic import products
from ppl_cnn.machines.messages import Conversation, leads
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.empirical_density import EmpiricalDensity
from ppl_cnn.numeric import in_float32


@in_float32
def evidence(
    densities: Sequence[TiltedDensity],
    *,
    rungs: int = 16,
    chains: int = 8,
    draws: int = 300,
    warmup: int = 300,
    particles: int = 64,
    temperatures: int = 200,
    seed: int = 0,
    out: str | Path | None = None,
    origin: Origin | None = None,
    progress: bool = True,
) -> dict[str, LogZ]:
    """Estimates log Z of tilted densities, Z = E_q[exp(f/T)], in three ways that must agree.

    Thermodynamic integration and reweighting (MBAR) take the replicas of a tempered run; annealed
    importance sampling climbs the same ladder. Where several processes work together, all of them
    call this, with one folder that all see; chains and particles are spread over them.

    Args:
        densities: the targets; they share reference and temperature, and their units differ.
        rungs: number of rungs from the reference to the density; a larger log Z needs more.
        chains: number of chains of each density, at least 4, whose differences give the standard
            errors.
        draws: kept draws per chain.
        warmup: transitions before them, which adapt the step sizes and place the rungs.
        particles: number of particles of annealed importance sampling.
        temperatures: strengths that each particle climbs through.
        seed: the same seed gives the same numbers.
        out: a folder for the tempered run and `evidence.json`. The same call resumes a run that
            was stopped. By default a temporary folder is used.
        origin: where the run comes from, for the record.
        progress: whether to show progress bars.

    Returns:
        Unit -> its log Z, a `LogZ`: the estimates `integrated`, `reweighted` and `annealed.log_z`,
        each with its `value` and standard `error`; it says whether integration and annealing
        `agree`.

    Raises:
        InputError: a setting can't be used, or `out` holds another run.

    Examples:
        For f(x) = 2 x and q = N(0, 1), log Z is 2.

        >>> import jax.numpy as jnp
        >>> import ppl_cnn
        >>> score = ppl_cnn.ScoreFunction(lambda x: 2 * jnp.sum(x), (1, 1, 1))
        >>> density = ppl_cnn.TiltedDensity(score, ppl_cnn.WhiteNoise(1.0))
        >>> few = {"rungs": 2, "chains": 4, "draws": 200, "warmup": 100, "temperatures": 50}
        >>> (found,) = evidence([density], **few, progress=False).values()
        >>> abs(found.reweighted.value - 2) < 0.2
        True
    """
    settings = check_settings(
        rungs=rungs,
        chains=chains,
        draws=draws,
        warmup=warmup,
        particles=particles,
        temperatures=temperatures,
        seed=seed,
    )
    origin = origin or Origin(command="ppl_cnn.evidence")
    with TemporaryDirectory() as temporary, products("highest"):
        folder = Path(Conversation().agreed(temporary) if out is None else out)
        sample_to(densities, settings, folder, draws=draws, origin=origin, progress=progress)
        found = log_z_of_run(
            folder,
            densities,
            particles=particles,
            temperatures=temperatures,
            seed=seed,
            progress=progress and leads(),
        )
        if leads():
            _write(folder, found)
    return found


def check_settings(
    *,
    rungs: int,
    chains: int,
    draws: int,
    warmup: int,
    particles: int,
    temperatures: int,
    seed: int,
) -> Sampling:
    """The settings of the tempered run that `evidence` takes, unless a number can't be used.

    Args:
        rungs: see `evidence`, as for all.
        chains: at least 4.
        draws: at least 4.
        warmup: at least 1.
        particles: at least 2.
        temperatures: at least 1.
        seed: from 0 on.

    Raises:
        ArgumentError: a number is out of range.
    """
    check_counts(chains=chains, draws=draws, particles=particles, temperatures=temperatures)
    return Sampling(kernel=Tempered(rungs=rungs), chains=chains, warmup=warmup, seed=seed)


@in_float32
def evidence_of_images(
    densities: Sequence[EmpiricalDensity],
    *,
    out: str | Path | None = None,
    origin: Origin | None = None,
    progress: bool = True,
) -> dict[str, MeanWeight]:
    """Log Z of units under the images of a data set, Z = mean exp(f/T): one forward pass of each.

    Where several processes work together, all of them call this, and share the images out.

    Args:
        densities: the targets; they share reference and temperature, and their units differ.
        out: a folder for `evidence.json`; by default nothing is written.
        origin: where the estimate comes from, for the record.
        progress: whether to show a bar.

    Returns:
        Unit -> the log of its mean weight, with a standard error.

    Raises:
        MismatchError: the densities don't share reference and temperature.
        FileError: files of the data set are damaged.
        RunFolderError: `out` holds something else.

    Examples:
        >>> import ppl_cnn
        >>> units = ppl_cnn.load("alexnet-fashion").units("class:Bag,class:Coat")
        >>> q = ppl_cnn.Empirical("fashion-embedded", "test[:100]")
        >>> densities = [ppl_cnn.EmpiricalDensity(unit, q) for unit in units]
        >>> [unit for unit in evidence_of_images(densities, progress=False)]
        ['fc8:8', 'fc8:4']
    """
    check_one_run(densities)
    alike: dict[Hashable, list[EmpiricalDensity]] = {}
    for density in densities:
        alike.setdefault(density.unit.program, []).append(density)
    found = dict[str, MeanWeight]()
    for group in alike.values():
        with products("highest"):
            scorer = Scorer(group, Pictures(group[0]), together=True)
            scored = scorer.weighed(progress=progress and leads())
        for density, tilts in zip(group, scored.tilts.astype(np.float64), strict=True):
            found[str(density.unit)] = MeanWeight(*mean_weight(tilts), len(tilts))
    found = {str(density.unit): found[str(density.unit)] for density in densities}
    if out is not None:
        origin = origin or Origin(command="ppl_cnn.evidence_of_images")
        config = {
            "kind": "evidence",
            "model": origin.model,
            "units": list(found),
            "reference": str(densities[0].reference),
            "temperature": densities[0].temperature,
        }
        with claimed(Path(out), config, origin.command) as folder:
            folder.update(**origin.description)
            if leads():
                _write(folder.path, found)
    return found


def _write(folder: Path, found: Mapping[str, LogZ] | Mapping[str, MeanWeight]) -> None:
    record = {unit: each.record() for unit, each in found.items()}
    write_aside(folder / "evidence.json", (json.dumps(record, indent=2) + "\n").encode())


@in_float32
def log_z_of_run(
    folder: Path,
    densities: Sequence[TiltedDensity],
    *,
    particles: int,
    temperatures: int,
    seed: int,
    progress: bool = True,
) -> dict[str, LogZ]:
    """Unit -> log Z of its density, from the folder of a tempered run.

    Args:
        folder: the run's.
        densities: the run's, all of them.
        particles: number of particles of annealed importance sampling.
        temperatures: strengths that each particle climbs through.
        seed: the particles'.
        progress: whether to show progress bars.

    Raises:
        InputError: the run is of another kernel, has too few chains, or lacks draws.
    """
    found = {}
    compiled: dict[Hashable, TiltedDensity] = {}
    for density in densities:
        name = str(density.unit)
        own = folder / unit_folder(name) if len(densities) > 1 else folder
        replicas = Replicas.of(open_draws(own / "draws.zarr"))
        found[name] = LogZ(
            thermodynamic_integration(replicas),
            reweighting(replicas),
            annealed_importance_sampling(
                compiled.setdefault(density.unit.program, density),
                density.params,
                replicas,
                particles=particles,
                temperatures=temperatures,
                seed=seed,
                progress=progress,
            ),
        )
    return found
