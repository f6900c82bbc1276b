"""Prepares data sets: `python -m ppl_cnn.data prepare fashion_mnist`."""

import contextlib
import importlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ppl_cnn import InputError
from ppl_cnn.command import run_command
from ppl_cnn.data.readers import DATA_SETS, NAMES, data_root

DESCRIPTION = """Data sets for training and evaluation.

fashion-embedded comes with the package, ready to read. fashion_mnist has to be prepared once,
from the idx files that Debian's package dataset-fashion-mnist installs:

  python -m ppl_cnn.data prepare fashion_mnist
  python -m ppl_cnn.pretrain --data fashion_mnist
"""


@dataclass(frozen=True)
class Prepare:
    """Writes a data set as TFDS array_record files, which training reads without TensorFlow.

    fashion_mnist is the whole of Fashion-MNIST, 60,000 + 10,000 images (42 MB, 10 seconds).
    fashion-embedded is the class-balanced subset of 6,000 + 1,000 that the package ships;
    preparing it makes the shipped files again.
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Which: fashion_mnist or fashion-embedded."""
    manual_dir: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="DIR", help_behavior_hint="(default: /usr/share/datasets/fashion-mnist)"
        ),
    ] = None
    """The folder with the original files; for Fashion-MNIST its four idx .gz files."""
    data_dir: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="DIR",
            help_behavior_hint="(default: TFDS's own, $TFDS_DATA_DIR or ~/tensorflow_datasets)",
        ),
    ] = None
    """The folder to write to; a folder of the data set's name is made in it."""


def prepare(config: Prepare) -> None:
    """Prepares the data set and prints what it holds and where it lies.

    Raises `InputError` when the name is unknown, the original files can't be read or the folder
    can't be written to. A data set that is there already is left as it is.
    """
    if config.name not in NAMES:
        raise InputError(
            f"there is no data set {config.name!r} to prepare; there are {', '.join(NAMES)}."
        )
    data_set = DATA_SETS[config.name]
    folder = data_root(config.data_dir) / data_set.folder
    if folder.exists():
        print(f"{config.name} is there already; to prepare it again, delete {folder}")
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder.parent).close()
    except OSError as error:
        raise InputError(
            f"{folder.parent} can't be written to ({error.strerror}); give another folder with"
            " --data-dir."
        ) from error
    sizes = _build(data_set.builder, folder, config.manual_dir or Path(data_set.manual_dir))
    print(f"{config.name}: {sizes} images in {folder}")


def _build(builder: str, folder: Path, manual_dir: Path) -> str:
    import tensorflow_datasets as tfds

    module, _, name = builder.partition(":")
    builder_class = getattr(importlib.import_module(module), name)
    if not manual_dir.is_dir() or not any(manual_dir.iterdir()):
        raise InputError(
            f"{manual_dir} is no folder with files: {builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS}."
        )
    # TFDS announces a download and shows bars without an end; the builder shows its own.
    tfds.disable_progress_bar()
    with (
        tempfile.TemporaryDirectory() as downloads,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        build = builder_class(data_dir=folder.parent.parent)
        build.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
        )
    return " + ".join(f"{info.num_examples:,} {split}" for split, info in build.info.splits.items())


if __name__ == "__main__":
    run_command(
        # The suppressed None keeps `prepare` a subcommand as long as it is the only one.
        Annotated[Prepare, tyro.conf.subcommand("prepare")] | Annotated[None, tyro.conf.Suppress],
        prepare,
        prog="python -m ppl_cnn.data",
        description=DESCRIPTION,
    )
