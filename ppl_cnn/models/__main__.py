"""Imports published weights: `python -m ppl_cnn.models import FILE --as NAME --out DIR`."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import tyro

from ppl_cnn.errors import InputError
from ppl_cnn.options.command import run_command

DESCRIPTION = """Networks with published weights.

A file of weights is converted once, into a folder that the other commands open:

  python -m ppl_cnn.models import bvlc_alexnet.caffemodel --as alexnet --out runs/alexnet
  python -m ppl_cnn.models import auto --as alexnet-torchvision --out runs/alexnet-torchvision
  python -m ppl_cnn.units --model runs/alexnet
"""


@dataclass(frozen=True)
class Import:
    """Converts a file of weights to a model's folder.

    The formats are PyTorch's .pth and .pt, .caffemodel, .safetensors, .npz and pickles of NumPy
    arrays. Nothing in a file is ever run.
    """

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """The file, or "auto" to fetch the network's published one."""
    network: Annotated[str, tyro.conf.arg(name="as", metavar="NAME")]
    """The network whose weights they are, such as alexnet."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder to write, which must be new or empty."""
    classes: Annotated[
        Path | None,
        tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the network's own)"),
    ] = None
    """The classes' names, one a line; networks of ImageNet have their own."""


def import_weights(config: Import) -> None:
    """Writes the folder and prints where it lies.

    Raises `InputError` when the file or the names don't fit the network, or the folder holds
    something.
    """
    from ppl_cnn.models.networks.catalogue import network_named
    from ppl_cnn.models.networks.graph import shapes
    from ppl_cnn.models.trained.model_folder import read_published, save, weights_file

    network = network_named(config.network)
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise InputError(f"{config.out} is there already and isn't empty: give another --out.")
    path = weights_file(network, config.file)
    cnn = read_published(path, network)
    if config.classes is not None:
        count = shapes(network)[network.layers[-1].name][-1]
        cnn.classes = _read_names(config.classes, count)
    config.out.mkdir(parents=True, exist_ok=True)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    packages = ("ppl_cnn", "jax", "numpy")
    description = {
        "imported_from": {"file": path.name, "sha256": digest},
        "versions": {package: version(package) for package in packages},
    }
    save(config.out, cnn, description)
    print(f"{network.name}: {path.name} is converted to {config.out}")


def _read_names(path: Path, count: int) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"The classes can't be read from {path} ({reason}).") from None
    if len(names) != count or not all(names):
        raise InputError(f"{path} must give {count} classes, one a line, not {len(names)}.")
    return names


if __name__ == "__main__":
    run_command(
        # The suppressed None keeps `import` a subcommand as long as it is the only one.
        Annotated[Import, tyro.conf.subcommand("import")] | Annotated[None, tyro.conf.Suppress],
        import_weights,
        prog="python -m ppl_cnn.models",
        description=DESCRIPTION,
    )
