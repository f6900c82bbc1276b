"""The methods of sampling by their names: transition kernels, and importance resampling."""

from collections.abc import Sequence

from ppl_cnn.errors import ArgumentError, unknown
from ppl_cnn.inference.kernels.isir import ISIR
from ppl_cnn.inference.kernels.kernel import Kernel
from ppl_cnn.inference.kernels.registry import KERNELS, LIBRARIES, parse_kernel
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.inference.sampling.resampling.scorer import Density
from ppl_cnn.inference.sampling.resampling.settings import PROPOSALS, Resample, Resampling
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.starts.drawn import Prior
from ppl_cnn.inference.sampling.starts.start import Start
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.empirical_density import EmpiricalDensity

type Method = Kernel | Resample
"""How draws are made."""


def parse_method(text: str) -> Method:
    """The method that a text names, with default settings.

    Args:
        text: resample or a name in `KERNELS`; `tempered:R` for R rungs, `isir:N` for N fresh
            draws, `resample:N` for N proposals, `LIBRARY:NAME` for another library's kernel. A
            record's text `NAME(SETTING=VALUE, ...)` is one too, with settings of the kernel's
            class.

    Raises:
        UnknownNameError: no method has that name.
        ArgumentError: the value after the colon can't be used, or a setting.

    Examples:
        >>> print(parse_method("resample:2000"), parse_method("tempered:4"))
        resample:2000 tempered:4
        >>> print(parse_method("split(step_size=0.006, angle=0.15)"))
        split(step_size=0.006, angle=0.15)
    """
    name, colon, value = text.partition(":")
    if name == Resample.name:
        return Resample.parse(value) if colon else Resample()
    if name.partition("(")[0] not in (*KERNELS, *LIBRARIES):
        raise unknown("kernel", name, (*KERNELS, Resample.name))
    return parse_kernel(text)


def method_for(density: Density, given: Method | str | None) -> Method:
    """The method by which a density is sampled.

    Args:
        density: the target.
        given: the method or its text. By default it is resample for images of a data set, isir
            for a reference that can't be inverted, such as a generator's, whose latents have hills
            far apart, and split for all others.

    Raises:
        UnknownNameError: no method has that name.
        ArgumentError: the method doesn't fit the density: the images of a data set have no latent
            in which chains could move, and all of them are proposals.
    """
    empirical = isinstance(density, EmpiricalDensity)
    if given is None and isinstance(density, TiltedDensity):
        given = Split.name if density.reference.is_invertible else ISIR.name
    elif given is None:
        given = Resample.name
    method = parse_method(given) if isinstance(given, str) else given
    if empirical and not (isinstance(method, Resample) and method.proposals == PROPOSALS):
        raise ArgumentError(
            f"Under {density.reference} all images are weighted and drawn by their weights, which "
            f"is `kernel=resample` without a number, not {method}.",
            argument="kernel",
        )
    return method


def settings_for(
    method: Method,
    *,
    chains: int,
    warmup: int,
    thin: int,
    target_accept: float | None,
    seed: int,
    start: Start,
) -> Sampling | Resampling:
    """The settings of a run by a method; those of chains alone are left out of resampling's.

    Args:
        method: the kernel, or resampling.
        chains: number of chains, or rows of independent draws.
        warmup: see `Sampling`.
        thin: see `Sampling`.
        target_accept: see `Sampling`; by default the kernel's.
        seed: the run's.
        start: see `Sampling`; independent draws have none but the default.

    Raises:
        ArgumentError: a setting is out of range, or resampling is given a start.
    """
    if isinstance(method, Resample):
        if not isinstance(start, Prior):
            raise ArgumentError(
                f"Draws of `kernel={method}` are independent and start nowhere, but "
                f"`start={start}` was given. Leave it out.",
                argument="start",
            )
        return Resampling(kernel=method, chains=chains, seed=seed)
    return Sampling(
        kernel=method,
        chains=chains,
        warmup=warmup,
        thin=thin,
        target_accept=target_accept,
        seed=seed,
        start=start,
    )


def with_latents(densities: Sequence[Density]) -> list[TiltedDensity]:
    """The densities, if chains can move in their latents.

    Raises:
        ArgumentError: the reference of one is a data set.
    """
    found = [density for density in densities if isinstance(density, TiltedDensity)]
    if len(found) < len(densities):
        raise ArgumentError(
            f"Chains can't move among the images of {densities[0].reference}. Give another "
            f"`reference`, or `kernel=resample`.",
            argument="reference",
        )
    return found
