"""The kernels by their names, and the one parser of a kernel's text."""

from ppl_cnn.errors import unknown
from ppl_cnn.inference.kernels.blackjax_kernels import BlackJAX
from ppl_cnn.inference.kernels.isir import ISIR
from ppl_cnn.inference.kernels.kernel import Kernel
from ppl_cnn.inference.kernels.langevin import Langevin
from ppl_cnn.inference.kernels.numpyro_kernels import HMC, NUTS, ExternalKernel
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
        text: a name in `KERNELS`, `isir:N` for N fresh draws, `tempered:R` for R rungs, or
            `LIBRARY:NAME` for a kernel of one of `LIBRARIES`.

    Raises:
        UnknownNameError: no kernel has that name.
        ArgumentError: the value after the colon can't be used, or blackjax is not installed.

    Examples:
        >>> print(parse_kernel("tempered:4"))
        tempered:4
    """
    name, colon, value = text.partition(":")
    if name in LIBRARIES:
        return LIBRARIES[name].parse(value)
    if name not in KERNELS:
        raise unknown("kernel", name, tuple(KERNELS))
    return KERNELS[name].parse(value) if colon else KERNELS[name]()
