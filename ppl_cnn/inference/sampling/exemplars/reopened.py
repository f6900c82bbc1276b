"""The network and the units of a run that was sampled before, opened as its record says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppl_cnn.errors import MismatchError, RunFolderError
from ppl_cnn.inference.runs.record import read_record
from ppl_cnn.inference.sampling.driver import weights_digest
from ppl_cnn.models.trained.cnn import CNN
from ppl_cnn.models.trained.loading import load
from ppl_cnn.models.trained.modules.module_network import ModuleNetwork
from ppl_cnn.models.trained.modules.module_unit import ModuleUnit
from ppl_cnn.models.units.targets import Logit
from ppl_cnn.models.units.unit import Unit
from ppl_cnn.models.units.views import averaged
from ppl_cnn.numeric import in_float32


class Reopened(NamedTuple):
    """What a run was of."""

    network: CNN | ModuleNetwork
    units: Sequence[Unit | ModuleUnit]
    """All of the run, in its order, without warps."""


@in_float32
def reopened(folder: Path) -> Reopened:
    """Opens the network of a run again, and finds its units.

    Args:
        folder: a run of `python -m ppl_cnn.sample`, finished or not; or one unit's of several.

    Raises:
        RunFolderError: the folder holds no such run, or its record doesn't say what it is of.
        MismatchError: the network has other weights by now.
        InputError: the network can't be opened (see `load`).
    """
    record = read_record(folder)
    config = record["config"]
    names = config.get("units") or [config.get("unit")]
    opened = record.get("opened") or {"model": config.get("model")}
    if config.get("kind") != "sampling" or not opened["model"] or None in names:
        raise RunFolderError(
            f"The record of {folder} doesn't say which network it is of. Give a run of `python -m "
            f"ppl_cnn.sample`, or sample with `exemplars`.",
            path=folder,
        )
    network = load(**opened)
    if "size" in config:
        network = network.resized(config["size"])
    text, side = ",".join(names), config.get("response", "pre")
    units: Sequence[Unit | ModuleUnit] = network.units(text, side, _target(config))
    _check_weights(folder, units, config)
    return Reopened(network, units)


def _target(config: Mapping[str, Any]) -> str:
    """The target that was asked for: only auto gives filters another than classes."""
    target = str(config.get("target", Logit()))
    return "auto" if "," in target else target


def _check_weights(
    folder: Path, units: Sequence[Unit | ModuleUnit], config: Mapping[str, Any]
) -> None:
    """Refuses a network whose weights have changed since the run.

    The record of one unit of several has the digest of all, which isn't compared.
    """
    views = [averaged(u, config.get("warps", 0), config.get("smooth", 0.0)) for u in units]
    if "part_of" not in config and weights_digest(views) != config.get("weights"):
        raise MismatchError(
            f"The network that {folder} is of has other weights now than when it was sampled. "
            f"Sample again into another folder."
        )
