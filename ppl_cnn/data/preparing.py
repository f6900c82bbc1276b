"""Preparing data sets: from the original files to TFDS array_record files."""

import contextlib
import fcntl
import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ppl_cnn import InputError
from ppl_cnn.data.data_sets import DATA_SETS, NAMES, VERSION, Prepared, data_root


def prepare(
    name: str,
    data_dir: str | None = None,
    manual_dir: Path | None = None,
    short_side: int | None = None,
) -> tuple[Prepared, str | None]:
    """Writes a data set, unless it is there already.

    Args:
        name: one of `NAMES`, without a variant: that is told by the files and the options.
        data_dir: the folder to write to, by default TFDS's own.
        manual_dir: the folder with the original files, by default where they usually lie.
        short_side: of photographs, what to scale a longer short side down to.

    Returns:
        The data set, and what was written in words; None if it was there.

    Raises:
        InputError: the name is unknown, the original files can't be read, more than 0.1 % of the
            images are damaged, or the folder can't be written to. Nothing is left behind then.
    """
    if name not in NAMES:
        raise InputError(f"there is no data set {name!r} to prepare; there are {', '.join(NAMES)}.")
    data_set = DATA_SETS[name]
    root = data_root(data_dir)
    if not data_set.variants and (root / data_set.folder / VERSION).exists():
        return Prepared(name, root / data_set.folder / VERSION), None
    module, _, class_name = data_set.builder.partition(":")
    builder_class = getattr(importlib.import_module(module), class_name)
    originals = manual_dir or (data_set.manual_dir and Path(data_set.manual_dir))
    if not originals or not originals.is_dir() or not any(originals.iterdir()):
        said = f"{originals} is no folder with files" if originals else "--manual-dir is missing"
        raise InputError(f"{said}: {builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS}.")
    return write(name, builder_class, builder_class.variant(originals, short_side), root, originals)


def write(
    name: str, builder_class: Any, variant: Any, root: Path, originals: Path
) -> tuple[Prepared, str | None]:
    """Writes what a builder makes, unless it is there already; see `prepare`.

    Args:
        name: the data set's.
        builder_class: the TFDS builder.
        variant: its config, or the config's name, or None if it has none.
        root: the data directory.
        originals: the folder with the original files.
    """
    import tensorflow_datasets as tfds
    from absl import logging

    folder = root / builder_class.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"{root} can't be written to ({error.strerror}); give another folder with --data-dir."
        ) from error
    # TFDS announces a download and shows bars without an end; the builder shows its own.
    tfds.disable_progress_bar()
    logging.set_verbosity(logging.ERROR)  # it warns of every config that isn't in its list
    with (
        _alone(folder),
        tempfile.TemporaryDirectory() as downloads,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        build = builder_class(data_dir=root, config=variant)
        config = build.builder_config
        done = Prepared(f"{name}/{config.name}" if config else name, Path(build.data_dir))
        if done.folder.exists():
            return done, None
        build.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(manual_dir=originals),
        )
    sizes = (f"{info.num_examples:,} {split}" for split, info in build.info.splits.items())
    return done, f"{' + '.join(sizes)} images"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of several processes that want to write to the folder, one does; the others wait."""
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
