"""Prepares and lists data sets: `python -m ppl_cnn.data prepare fashion_mnist`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ppl_cnn.data.catalogue import (
    DATA_SETS,
    FOLDER,
    Prepared,
    class_line,
    data_root,
    prepare_command,
    prepared,
)
from ppl_cnn.data.sources.folders import all_prepared
from ppl_cnn.data.sources.wordnet import readable
from ppl_cnn.errors import shown
from ppl_cnn.options.command import run_command

DESCRIPTION = """Data sets for training and evaluation.

fashion-embedded comes with the package, ready to read. Prepare the others once, from their original
files:

  python -m ppl_cnn.data prepare fashion_mnist
  python -m ppl_cnn.pretrain --data fashion_mnist
  python -m ppl_cnn.data prepare imagenet2012 --manual-dir DIR --short-side 256

Class folders of images, PATH/train/CLASS/... and PATH/val/CLASS/..., or PATH/CLASS/..., are
prepared at their first use: --data folder:PATH. A copy holds the files' own bytes, so it is as
large as they are.

Without a subcommand, the command lists the data sets.
"""

_TO_PREPARE = {name: each for name, each in DATA_SETS.items() if not each.shipped}
_ORIGINALS = "; ".join(f"for {name}, {each.originals}" for name, each in _TO_PREPARE.items())
_USUAL = ", ".join(f"{e.manual_dir} for {n}" for n, e in _TO_PREPARE.items() if e.manual_dir)

DataDir = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="DIR", help_behavior_hint="(default: $TFDS_DATA_DIR or ~/tensorflow_datasets)"
    ),
]


@dataclass(frozen=True)
class Prepare:
    """Writes a data set as TFDS array_record files, which training reads without TensorFlow."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """The data set: a name that `python -m ppl_cnn.data list` shows, or folder:PATH for class
    folders of images. fashion-embedded makes the shipped files again, from those of
    fashion_mnist."""
    manual_dir: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="DIR",
            help=f"The folder with the original files: {_ORIGINALS}.",
            help_behavior_hint=f"(default: {_USUAL})",
        ),
    ] = None
    short_side: Annotated[
        int | None, tyro.conf.arg(metavar="PIXELS", help_behavior_hint="(default: as they are)")
    ] = None
    """The length that longer short sides of photographs are scaled down to. They are stored as
    JPEG, so that decoding keeps up with training; 256 is usual."""
    data_dir: DataDir = None
    """The folder to write to. The data set gets a folder of its own in it."""


@dataclass(frozen=True)
class List:
    """Shows all data sets, the prepared ones with their sizes, the others with how to prepare."""

    data_dir: DataDir = None
    """The folder to look in."""


def main(config: Prepare | List) -> None:
    """Runs the subcommand."""
    if isinstance(config, Prepare):
        prepare(config)
    else:
        show(config)


def prepare(config: Prepare) -> None:
    """Prepares the data set, and prints its sizes, folder and classes, and what was left out.

    Raises:
        InputError: see `ppl_cnn.data.preparing.prepare`.
    """
    from ppl_cnn.data.preparing import prepare

    done = prepare(
        config.name, config.data_dir, manual_dir=config.manual_dir, short_side=config.short_side
    )
    name, folder = done.data_set
    if done.images is None:
        print(f"{shown(name)} is there already. To prepare it again, delete {folder}")
    else:
        print(f"{shown(name)}: {done.images} in {folder}")
    print(class_line(readable(done.data_set.classes())))
    for line in done.account:
        print(line)
    if done.left_out:
        print(f"left out as damaged ({len(done.left_out)}):")
        for image, fault in done.left_out.items():
            print(f"  {image}: {fault}")


def show(config: List) -> None:
    """Prints a paragraph for each data set."""
    print(f"In {data_root(config.data_dir)}:")
    for name, data_set in DATA_SETS.items():
        sizes = " + ".join(f"{count:,}" for count in data_set.images.values())
        print(f"\n{name}: {data_set.summary} ({sizes} images in {data_set.classes:,} classes)")
        found = prepared(name, config.data_dir)
        for each in found:
            print(_line(each))
        if not found:
            print(f"  not prepared: {prepare_command(name, config.data_dir)}")
    print(f"\n{FOLDER}PATH: class folders of images, prepared at their first use")
    for each in all_prepared(config.data_dir):
        print(_line(each))


def _line(each: Prepared) -> str:
    sizes = " + ".join(f"{count:,} {split}" for split, count in each.counts().items())
    return f"  --data {shown(each.name)}: {sizes} in {each.folder}"


if __name__ == "__main__":
    run_command(
        Annotated[Prepare, tyro.conf.subcommand("prepare")]
        | Annotated[List, tyro.conf.subcommand("list")],
        main,
        prog="python -m ppl_cnn.data",
        description=DESCRIPTION,
        defaults=List(),
    )
