"""Preparing data sets: from the original files to TFDS array_record files."""

import contextlib
import fcntl
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ppl_cnn.data.catalogue import (
    DATA_SETS,
    FOLDER,
    KNOWN,
    NAMES,
    VERSION,
    Prepared,
    data_root,
)
from ppl_cnn.data.sources.folders import Tree, all_prepared, prepared_tree
from ppl_cnn.errors import InputError


class Preparation(NamedTuple):
    """What `prepare` has done."""

    data_set: Prepared
    images: str | None
    """How many were written, in words; None if all was there already."""
    left_out: Mapping[str, str]
    """Damaged images, and what is wrong with each."""


def prepare(
    name: str,
    data_dir: str | None = None,
    manual_dir: Path | None = None,
    short_side: int | None = None,
) -> Preparation:
    """Writes a data set, unless it is there already.

    Args:
        name: one of `NAMES`, without a variant (that is told by the files and the options), or
            folder:PATH.
        data_dir: the folder to write to, by default TFDS's own.
        manual_dir: the folder with the original files, by default where they usually lie.
        short_side: of photographs, what to scale a longer short side down to.

    Raises:
        InputError: the name is unknown, the original files can't be read, more than 0.1 % of the
            images are damaged, or the folder can't be written to. Nothing is left behind then.
    """
    if name.startswith(FOLDER):
        if manual_dir is not None:
            raise InputError(f"{name} says where its images are: leave --manual-dir out.")
        return prepare_tree(Path(name.removeprefix(FOLDER)).expanduser(), data_dir, short_side)
    if name not in NAMES:
        raise InputError(f"there is no data set {name!r} to prepare; there are {KNOWN}.")
    data_set = DATA_SETS[name]
    root = data_root(data_dir)
    if not data_set.variants and (root / data_set.folder / VERSION).exists():
        return Preparation(Prepared(name, root / data_set.folder / VERSION), None, {})
    module, _, class_name = data_set.builder.partition(":")
    builder_class = getattr(importlib.import_module(module), class_name)
    originals = manual_dir or (data_set.manual_dir and Path(data_set.manual_dir))
    if not originals or not originals.is_dir() or not any(originals.iterdir()):
        said = f"{originals} is no folder with files" if originals else "--manual-dir is missing"
        raise InputError(f"{said}: {builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS}.")
    variant = builder_class.variant(originals, short_side)
    if variant is not None:
        name = f"{name}/{variant if isinstance(variant, str) else variant.name}"
    return _write(name, builder_class, variant, root, originals)


def prepare_tree(path: Path, data_dir: str | None, short_side: int | None = None) -> Preparation:
    """Writes the images of class folders, unless that has been done since the tree last changed."""
    tree = Tree.read(path)
    there = prepared_tree(tree, data_dir)
    if there is not None:
        return Preparation(there, None, {})
    from ppl_cnn.data.sources.trees import FolderImages

    name = f"{FOLDER}{tree.path}"
    for other in all_prepared(data_dir):
        # Another process may have prepared this very tree by now.
        if other.name == name and not other.folder.parent.name.startswith(tree.variant):
            print(f"{name} has changed since {other.folder} was made of it.", file=sys.stderr)
    variant = FolderImages.variant(tree, short_side)
    return _write(name, FolderImages, variant, data_root(data_dir), tree.path)


def _write(name: str, builder_class: Any, variant: Any, root: Path, originals: Path) -> Preparation:
    """Writes what a builder makes of a variant (its config, or that's name, or None)."""
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
        done = Prepared(name, Path(build.data_dir))
        if done.folder.exists():
            return Preparation(done, None, {})
        build.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(manual_dir=originals),
        )
    sizes = (f"{info.num_examples:,} {split}" for split, info in build.info.splits.items())
    left_out = (build.info.metadata or {}).get("left_out", {})
    return Preparation(done, f"{' + '.join(sizes)} images", left_out)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of several processes that want to write to the folder, one does; the others wait."""
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
