"""Imports published weights: `python -m ppl_cnn.models import FILE --as NAME --out DIR`."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import tyro

from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.options.command import run_command

DESCRIPTION = """Imports published weights.

A file of weights is converted once, to a folder that the other commands open as --model:

  python -m ppl_cnn.models import bvlc_alexnet.caffemodel --as alexnet --out runs/alexnet
  python -m ppl_cnn.models import vgg16.caffemodel --as vgg16 --pixels caffe --out runs/vgg16
  python -m ppl_cnn.models import auto --as alexnet-torchvision --out runs/alexnet-torchvision
  python -m ppl_cnn.units --model runs/alexnet
"""


@dataclass(frozen=True)
class ImportOptions:
    """Converts a file of weights to a model's folder.

    Formats: PyTorch's .pth and .pt, .caffemodel, .safetensors (and the index of its parts), .npy,
    .npz and pickled NumPy arrays. Code in a file is never run.
    """

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """The file of weights, or auto to fetch the network's published file."""
    network: Annotated[str, tyro.conf.arg(name="as", metavar="NAME")]
    """The declared network that the weights belong to, such as alexnet."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder to write; it must be new or empty."""
    classes: Annotated[
        Path | None,
        tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the network's)"),
    ] = None
    """A text file of the classes' names, one a line. ImageNet networks know theirs."""
    pixels: Annotated[
        str | None,
        tyro.conf.arg(metavar="PIXELS", help_behavior_hint="(default: the network's)"),
    ] = None
    """What the weights' network sees of pixels, if not what the declared one does: torchvision,
    caffe, keras-tf, inception, raw, or "mean=M,M,M scale=S,S,S order=RGB" for (pixels - mean) *
    scale of pixels from 0 to 255."""
    entry: Annotated[
        str | None, tyro.conf.arg(metavar="KEY", help_behavior_hint="(default: the weights)")
    ] = None
    """The key of the weights, such as model_ema, in a checkpoint that has several. By default it is
    the weights themselves, not their average; a line says what else there is."""


def import_weights(options: ImportOptions) -> None:
    """Writes the model's folder and prints its path.

    Raises:
        FileError: a file can't be read, or the folder isn't empty.
        MismatchError: the weights or the names don't fit the network.
        UnknownNameError: there is no such network, or no published weights of it.
        ArgumentError: the pixels aren't known, or the file has no such entry.
    """
    from ppl_cnn.models.networks.catalogue import network_named
    from ppl_cnn.models.networks.graph import shapes
    from ppl_cnn.models.trained.loading import read_published, weights_file
    from ppl_cnn.models.trained.model_folder import save

    network = network_named(options.network)
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise FileError(
            f"{options.out} exists and isn't an empty folder. Give another `out`.", path=options.out
        )
    path = weights_file(network, options.file)
    cnn = read_published(path, network, entry=options.entry, pixels=options.pixels)
    if options.classes is not None:
        count = shapes(cnn.declaration)[network.layers[-1].name][-1]
        cnn.classes = _read_names(options.classes, count)
    options.out.mkdir(parents=True, exist_ok=True)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    packages = ("ppl_cnn", "jax", "numpy")
    description = {
        "imported_from": {"file": path.name, "sha256": digest},
        "versions": {package: version(package) for package in packages},
    }
    save(options.out, cnn, description)
    print(f"Converted {path.name} ({network.name}) to {options.out}")


def _read_names(path: Path, count: int) -> tuple[str, ...]:
    """The lines of a file of `count` names."""
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it isn't UTF-8 text"
        raise FileError(
            f"Names of `classes` can't be read from {path} ({reason}).", path=path
        ) from None
    if len(names) != count or not all(names):
        raise MismatchError(f"{path} must give {count} classes, one a line, not {len(names)}.")
    return names


if __name__ == "__main__":
    run_command(
        # The suppressed None keeps `import` a subcommand as long as it is the only one.
        Annotated[ImportOptions, tyro.conf.subcommand("import")]
        | Annotated[None, tyro.conf.Suppress],
        import_weights,
        prog="python -m ppl_cnn.models",
        description=DESCRIPTION,
    )
