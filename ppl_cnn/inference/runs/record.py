"""The record of a run, `run.json`: what made it, and where its units' folders are."""

import contextlib
import hashlib
import json
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ppl_cnn.errors import InputError

_PACKAGES = (
    *("ppl_cnn", "jax", "jaxlib", "numpyro", "flax", "optax", "orbax-checkpoint", "arviz", "zarr"),
    *("grain", "tensorflow-datasets", "array_record", "pillow", "numpy"),
)


_LONGEST_NAME = 60


def versions() -> dict[str, str]:
    """Of Python and the packages that determine a run's numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def unit_folder(text: str) -> str:
    """The name of a unit's folder in a run of several units: `conv5:12@0,3` is `conv5-12-at-0,3`.

    Other signs than those of such a text are replaced too, and a digest then keeps the names of
    different units different.
    """
    name = re.sub(r"[^\w.,-]+", "-", text.replace("@", "-at-"))
    if re.fullmatch(r"\w[\w.,:@]*", text) and len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[:_LONGEST_NAME].lstrip('.-')}-{digest}"


def read_record(path: Path) -> dict[str, Any]:
    """The content of a run's `run.json`.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        record = json.loads((path / "run.json").read_text())
        if not isinstance(record["config"], dict):
            raise TypeError("no configuration")
    except FileNotFoundError:
        raise InputError(f"{path} is no run's folder: it holds no run.json.") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path / 'run.json'} is damaged; give another folder.") from None
    return record


def is_two_sided(text: str) -> bool:
    """Whether a start's text, as it is recorded, has half of the chains at the reference."""
    return text.partition(":")[0] == "two-sided"
