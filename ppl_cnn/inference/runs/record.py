"""A run's record, `run.json`: what made the run, and where its units' folders are.

Its fields, as JSON:

    config        what determines the result: kind ("sampling" or "training"), model, unit or units,
                  reference, temperature and the settings; init is where chains start
    command       how the run was started
    versions      Python and the packages that determine the numbers
    draws         wanted per chain
    network, preprocessing, classes, recipe       what else describes a sampling run
    gradients, seconds    spent so far on start, warmup and sampling
    annealing     how the chains' starts were annealed, if they were
    data, sessions        the data and the starts of a training run

The folder of one unit of several has a record of its own, whose config says `part_of`. A run may
hold another one, of the same units under the published setting, in its folder `published`.
"""

import contextlib
import hashlib
import json
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ppl_cnn.errors import RunFolderError

_PACKAGES = (
    *("ppl_cnn", "jax", "jaxlib", "numpyro", "flax", "optax", "orbax-checkpoint", "arviz", "zarr"),
    *("grain", "tensorflow-datasets", "array_record", "pillow", "numpy"),
)

PUBLISHED = "published"
"""The folder, within a run's, of the same units under the published setting."""

_LONGEST_NAME = 60

_OF_PICTURES = ("generator", "data")
"""Keywords of references whose images are pictures."""

ARGUMENTS = {"init": "start"}
"""Settings whose key in the record is not the argument's name."""

_NOW_CALLED = {
    ("init", "two-sided"): "two-sided:rto",
    ("init", "anneal:16"): "anneal",
    ("init", "two-sided:anneal:16"): "two-sided:anneal",
    ("kernel", "tempered:16"): "tempered",
}
"""Settings that earlier versions recorded by another text."""


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that determine a run's numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def unit_folder(text: str) -> str:
    """The name of a unit's folder in a run of several units.

    Letters, digits and `_.,-` are kept, `@` becomes `-at-`, anything else `-`. A name that this
    could make equal to another unit's, or that is too long, ends with a digest of the text.

    Args:
        text: the unit, such as `conv5:12@0,3`.

    Examples:
        >>> unit_folder("conv5:12@0,3")
        'conv5-12-at-0,3'
    """
    name = re.sub(r"[^\w.,-]+", "-", text.replace("@", "-at-"))
    if re.fullmatch(r"\w[\w.,:@]*", text) and len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[:_LONGEST_NAME].lstrip('.-')}-{digest}"


def read_record(folder: Path) -> dict[str, Any]:
    """The content of a run's `run.json`; its field `config` is a dict.

    Raises:
        RunFolderError: there is no `run.json`, or it is damaged.
    """
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text("utf-8"))
        if not isinstance(record["config"], dict):
            raise TypeError("no configuration")
    except FileNotFoundError:
        raise RunFolderError(
            f"{folder} holds no run.json. Give the folder of a run.", path=folder
        ) from None
    except (ValueError, KeyError, TypeError):
        raise RunFolderError(
            f"{folder / 'run.json'} is damaged. Give another folder.", path=folder
        ) from None
    return record


def same_setting(key: str, old: Any, new: Any) -> bool:
    """Whether two recorded values of a setting mean the same, also if an older version wrote one.

    Args:
        key: the setting's name in the record's config.
        old: its value in one record.
        new: its value in the other.
    """
    one, other = (_NOW_CALLED.get((key, str(value)), value) for value in (old, new))
    return bool(one == other)


def published_run(folder: Path, config: Mapping[str, Any]) -> Path:
    """Where the run of the same unit under the published setting lies, if it was sampled.

    Args:
        folder: a run of one unit, or a unit's folder in a run of several.
        config: its record's.
    """
    if "part_of" in config:
        return folder.parent / PUBLISHED / folder.name
    return folder / PUBLISHED


def has_pictures(config: Mapping[str, Any]) -> bool:
    """Whether the reference's images are pictures, as a data set's are, and not noise.

    Args:
        config: the record's.

    Examples:
        >>> has_pictures({"reference": "data:mnist"}), has_pictures({"reference": "white:10"})
        (True, False)
    """
    return str(config.get("reference", "")).partition(":")[0] in _OF_PICTURES


def second_side(config: Mapping[str, Any]) -> str | None:
    """How the second half of the chains started, if the first started at draws of the reference.

    Args:
        config: the record's.

    Returns:
        The name of the start, such as "rto"; None if all chains started alike.

    Examples:
        >>> second_side({"init": "two-sided:anneal:4"})
        'anneal'
    """
    kind, *parts = str(config.get("init", "")).split(":")
    if kind != "two-sided":
        return None
    return parts[0] if parts else "rto"  # as earlier versions recorded it
