"""Imports published weights: `python -m ppl_cnn.models import FILE --as NAME --out DIR`."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import tyro

from ppl_cnn.errors import ArgumentError, FileError
from ppl_cnn.options.command import run_command

DESCRIPTION = """Imports published weights.

A file of weights is converted once, to a folder that the other commands open as --model:

  python -m ppl_cnn.models import bvlc_alexnet.caffemodel --as alexnet --out runs/alexnet
  python -m ppl_cnn.models import vgg16.caffemodel --as vgg16 --pixels caffe --out runs/vgg16
  python -m ppl_cnn.models import auto --as alexnet-torchvision --out runs/alexnet-torchvision
  python -m ppl_cnn.models import resnet50.onnx --pixels torchvision --classes imagenet \\
      --out runs/resnet50
  python -m ppl_cnn.units --model runs/alexnet
"""


@dataclass(frozen=True)
class ImportOptions:
    """Converts a file of weights to a model's folder.

    Formats: PyTorch's .pth and .pt, .caffemodel, .safetensors (and the index of its parts), .npy,
    .npz and pickled arrays or tensors. Code in a file is never run.
    """

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """The file of weights, auto to fetch the network's published file, or an ONNX file."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder to write; it must be new or empty."""
    network: Annotated[
        str | None, tyro.conf.arg(name="as", metavar="NAME", help_behavior_hint="")
    ] = None
    """The declared network that the weights belong to, such as alexnet. An ONNX file needs none."""
    pixels: Annotated[
        str | None,
        tyro.conf.arg(metavar="PIXELS", help_behavior_hint="(default: the network's)"),
    ] = None
    """What the first layer sees of pixels: torchvision, caffe, keras-tf, inception, raw, or
    "mean=M,M,M scale=S,S,S order=RGB" for (pixels - mean) * scale of pixels from 0 to 255. An ONNX
    file needs it; weights do if it isn't what the declared network sees."""
    classes: Annotated[
        str | None,
        tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the network's)"),
    ] = None
    """A text file of the classes' names, one a line, or imagenet. Declared ImageNet networks know
    theirs."""
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
        ArgumentError: the network's name or its pixels are missing or unknown, or the file has no
            such entry.
    """
    from ppl_cnn.models.keras.files import SUFFIXES as KERAS
    from ppl_cnn.models.networks.catalogue import network_named
    from ppl_cnn.models.trained.cnn import CNN
    from ppl_cnn.models.trained.loading import read_published, weights_file
    from ppl_cnn.models.trained.model_folder import save, save_onnx
    from ppl_cnn.models.trained.onnx_network import open_onnx

    path, is_onnx = Path(options.file), options.file.lower().endswith(".onnx")
    if path.suffix.lower() in KERAS:
        raise ArgumentError(
            f"{path} can't be imported, as a file of Keras needs none of that. Give it to the "
            f"other commands as --model.",
            argument="file",
        )
    _check_together(options, is_onnx=is_onnx)
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise FileError(
            f"{options.out} exists and isn't an empty folder. Give another `out`.", path=options.out
        )
    given = {"pixels": options.pixels, "classes": options.classes}
    cnn: CNN
    if is_onnx:
        cnn = open_onnx(path, **given)
    else:
        network = network_named(str(options.network))
        path = weights_file(network, options.file)
        cnn = read_published(path, network, entry=options.entry, **given)
    content = path.read_bytes()
    packages = ("ppl_cnn", "jax", "numpy")
    description = {
        "imported_from": {"file": path.name, "sha256": hashlib.sha256(content).hexdigest()},
        "versions": {package: version(package) for package in packages},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    if is_onnx:
        save_onnx(options.out, cnn, description, content=content)
    else:
        save(options.out, cnn, description)
    print(f"Converted {path.name} ({cnn.name}) to {options.out}")


def _check_together(options: ImportOptions, *, is_onnx: bool) -> None:
    """Refuses options that the kind of file doesn't have, and asks for one that it needs."""
    if is_onnx and options.network is not None:
        raise ArgumentError(
            f"--as {options.network} can't be used with {options.file}, which has its own network. "
            f"Leave it out.",
            argument="as",
        )
    if is_onnx and options.entry is not None:
        raise ArgumentError(
            f"`entry={options.entry}` can't be used with {options.file}, which holds one network. "
            f"Leave it out.",
            argument="entry",
        )
    if not is_onnx and options.network is None:
        raise ArgumentError(
            f"--as is missing: which declared network do the weights of {options.file} belong to? "
            f"Give its name, such as alexnet.",
            argument="as",
        )


if __name__ == "__main__":
    run_command(
        # The suppressed None keeps `import` a subcommand as long as it is the only one.
        Annotated[ImportOptions, tyro.conf.subcommand("import")]
        | Annotated[None, tyro.conf.Suppress],
        import_weights,
        prog="python -m ppl_cnn.models",
        description=DESCRIPTION,
    )
