"""Lists networks, imports weights: `python -m ppl_cnn.models import FILE --as NAME --out DIR`."""

import hashlib
import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ppl_cnn.errors import ArgumentError, FileError
from ppl_cnn.options.command import run_command

DESCRIPTION = """Lists the networks, and imports published weights.

A file of weights is converted once, to a folder that the other commands open as --model:

  python -m ppl_cnn.models import bvlc_alexnet.caffemodel --as alexnet --out runs/alexnet
  python -m ppl_cnn.models import vgg16.caffemodel --as vgg16 --pixels caffe --out runs/vgg16
  python -m ppl_cnn.models import auto --as alexnet-torchvision --out runs/alexnet-torchvision
  python -m ppl_cnn.models import resnet50.onnx --pixels torchvision --classes imagenet \\
      --out runs/resnet50
  python -m ppl_cnn.units --model runs/alexnet

Without a subcommand, the command lists the networks.
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
    """The declared network that the weights belong to, such as resnet50; `python -m ppl_cnn.models`
    lists them. An ONNX file needs none."""
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
    flatten: Annotated[
        Literal["channels-first", "channels-last"] | None,
        tyro.conf.arg(help_behavior_hint="(default: as the names tell)"),
    ] = None
    """The order in which dense layers read maps: (channel, row, col), or (row, col, channel) as
    those do whose weights are named kernel, W or weights."""


@dataclass(frozen=True)
class List:
    """Shows the declared networks: images, scores, the number of weights, where these come from."""


def main(options: ImportOptions | List) -> None:
    """Runs the subcommand."""
    if isinstance(options, ImportOptions):
        import_weights(options)
    else:
        show()


def show() -> None:
    """Prints a line for each network."""
    from ppl_cnn.models.networks.catalogue import NETWORKS
    from ppl_cnn.models.networks.graph import shapes, weight_shapes
    from ppl_cnn.models.trained.model_folder import embedded_names
    from ppl_cnn.models.trained.published import PUBLISHED

    embedded = embedded_names()
    for name, network in NETWORKS.items():
        size = " x ".join(map(str, network.image_shape))
        scores = shapes(network)[network.layers[-1].name][-1]
        weights = weight_shapes(network).values()
        count = sum(math.prod(shape) for layer in weights for shape in layer.values())
        source = "--weights FILE or auto" if name in PUBLISHED else "--weights FILE"
        source = "comes with its weights" if name in embedded else source
        print(f"{name:<20} {size:<13}  {scores:>5,} scores  {count:>11,} weights  {source}")


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
        cnn = read_published(path, network, entry=options.entry, flatten=options.flatten, **given)
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
    for name in ("entry", "flatten") if is_onnx else ():
        if (value := getattr(options, name)) is not None:
            raise ArgumentError(
                f"`{name}={value}` can't be used with {options.file}, which is one whole network. "
                f"Leave it out.",
                argument=name,
            )
    if not is_onnx and options.network is None:
        raise ArgumentError(
            f"--as is missing: which declared network do the weights of {options.file} belong to? "
            f"Give its name, such as alexnet; `python -m ppl_cnn.models` lists them.",
            argument="as",
        )


if __name__ == "__main__":
    run_command(
        Annotated[ImportOptions, tyro.conf.subcommand("import")]
        | Annotated[List, tyro.conf.subcommand("list")],
        main,
        prog="python -m ppl_cnn.models",
        description=DESCRIPTION,
        defaults=List(),
    )
