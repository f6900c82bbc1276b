"""The kernels by their names, and the one parser of a kernel's text."""

import inspect

from ppl_cnn.errors import ArgumentError, unknown
from ppl_cnn.inference.kernels.isir import ISIR
from ppl_cnn.inference.kernels.kernel import Kernel
from ppl_cnn.inference.kernels.langevin import Langevin
from ppl_cnn.inference.kernels.libraries.blackjax_kernels import BlackJAX
from ppl_cnn.inference.kernels.libraries.numpyro_kernels import HMC, NUTS, ExternalKernel
from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.inference.kernels.tempered import Tempered

KERNELS: dict[str, type[Kernel]] = {
    "split": Split,
    "isir": ISIR,
    "tempered": Tempered,
    "hmc": HMC,
    "nuts": NUTS,
    "langevin": Langevin,
}
"""Name -> kernel. A kernel of your own takes one more line; it must work without arguments."""

LIBRARIES: dict[str, type[Kernel]] = {"blackjax": BlackJAX, "numpyro": ExternalKernel}
"""Library -> its kernels, each by its name there: `blackjax:mala`, `numpyro:BarkerMH`."""


def parse_kernel(text: str) -> Kernel:
    """The kernel that a text names, with default settings.

    Args:
        text: a name in `KERNELS`, `isir:N` for N fresh draws, `tempered:R` for R rungs,
            `LIBRARY:NAME` for a kernel of one of `LIBRARIES`, or, as in records,
            NAME(SETTING=VALUE, ...) with settings of the kernel's class.

    Raises:
        UnknownNameError: no kernel has that name.
        ArgumentError: the value after the colon can't be used, a setting, or blackjax is not
            installed.

    Examples:
        >>> print(parse_kernel("tempered:4"), parse_kernel("split(angle=0.15)"))
        tempered:4 split(angle=0.15)
    """
    called, bracket, settings = text.partition("(")
    if bracket and called in KERNELS:
        return _with_settings(called, settings)
    name, colon, value = text.partition(":")
    if name in LIBRARIES:
        return LIBRARIES[name].parse(value)
    if name not in KERNELS:
        raise unknown("kernel", name, tuple(KERNELS))
    return KERNELS[name].parse(value) if colon else KERNELS[name]()


def _with_settings(name: str, given: str) -> Kernel:
    """The kernel of a text NAME(SETTING=VALUE, ...); given is what follows the bracket."""
    parameters = inspect.signature(KERNELS[name]).parameters.values()
    kinds = {each.name: type(each.default) for each in parameters}
    kinds = {setting: kind for setting, kind in kinds.items() if kind in (int, float, str)}
    parts = [part.partition("=") for part in given.removesuffix(")").split(",")]
    texts = {setting.strip(): value for setting, _, value in parts}
    try:
        settings = {setting: kinds[setting](value) for setting, value in texts.items()}
    except (KeyError, ValueError):
        settings = {}
    if len(settings) < len(parts) or not given.endswith(")"):
        raise ArgumentError(
            f"Kernel {f'{name}({given}'!r} can't be read. Write {name}(SETTING=VALUE, ...) with "
            f"settings of {', '.join(kinds)}.",
            argument="kernel",
        )
    return KERNELS[name](**settings)
