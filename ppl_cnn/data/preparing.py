"""Preparing data sets: from the original files to TFDS array_record files."""

import contextlib
import fcntl
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppl_cnn.data.catalogue import DATA_SETS, FOLDER, KNOWN, VERSION, Prepared, data_root
from ppl_cnn.data.sources.folders import Tree, all_prepared, prepared_tree
from ppl_cnn.data.walk import EXAMPLES
from ppl_cnn.errors import ArgumentError, FileError, shown, unknown


class Preparation(NamedTuple):
    """The result of `prepare`."""

    data_set: Prepared
    """The data set's name with its variant, and its folder."""
    images: str | None
    """The numbers of images written, in words; None if the data set was there already."""
    left_out: Mapping[str, str]
    """Damaged images that were left out, each with its fault."""
    account: tuple[str, ...] = ()
    """Lines on what lies in class folders and was not taken, and why."""


def prepare(
    name: str,
    data_dir: str | Path | None = None,
    *,
    manual_dir: Path | None = None,
    short_side: int | None = None,
) -> Preparation:
    """Writes a data set as TFDS array_record files, unless it is there already.

    Args:
        name: one of `ppl_cnn.data.NAMES`, without a variant (the original files and `short_side`
            determine it), or folder:PATH.
        data_dir: the folder to write to, by default $TFDS_DATA_DIR or ~/tensorflow_datasets.
        manual_dir: the folder with the original files, by default where they usually lie.
        short_side: the length in pixels that longer short sides of photographs are scaled down to.

    Raises:
        UnknownNameError: no data set has this name.
        ArgumentError: `manual_dir` is missing, or an argument does not apply to this data set.
        FileError: original files are missing or damaged, more than 0.1 % of the images are damaged,
            or the folder cannot be written to. Nothing is left behind then.
    """
    if name.startswith(FOLDER):
        if manual_dir is not None:
            raise ArgumentError(
                f"`manual_dir` does not apply to {name}, which names its own folder. Leave it out.",
                argument="manual_dir",
            )
        if name == FOLDER:
            raise unknown("data set", name, KNOWN)
        path = Path(name.removeprefix(FOLDER)).expanduser()
        return prepare_tree(path, data_dir, short_side)
    if name not in DATA_SETS:
        raise unknown("data set", name, KNOWN)
    data_set = DATA_SETS[name]
    root = data_root(data_dir)
    if not data_set.variants and (root / data_set.folder / VERSION).exists():
        return Preparation(Prepared(name, root / data_set.folder / VERSION), None, {})
    module, _, class_name = data_set.builder.partition(":")
    builder_class = getattr(importlib.import_module(module), class_name)
    originals = manual_dir or (data_set.manual_dir and Path(data_set.manual_dir))
    if not originals:
        raise ArgumentError(
            f"`manual_dir` is missing for {name}. {data_set.advice}", argument="manual_dir"
        )
    if not originals.is_dir() or not any(originals.iterdir()):
        raise FileError(
            f"{originals} is not a folder with files. {data_set.advice}", path=originals
        )
    variant = builder_class.variant(originals, short_side)
    if variant is not None:
        name = f"{name}/{variant if isinstance(variant, str) else variant.name}"
    return _write(name, builder_class, variant, root, originals)


def prepare_tree(
    path: Path, data_dir: str | Path | None, short_side: int | None = None
) -> Preparation:
    """Writes the images of class folders, unless that has been done since the tree last changed.

    Args:
        path: the folder; see `ppl_cnn.data.sources.layouts` for its layout.
        data_dir: the folder to write to; see `prepare`.
        short_side: the length in pixels that longer short sides are scaled down to.

    Raises:
        FileError: the folder has another layout, or see `prepare`.
    """
    tree = Tree.read(path)
    there = prepared_tree(tree, data_dir)
    if there is not None:
        return Preparation(there, None, {}, tree.account())
    from ppl_cnn.data.sources.trees import FolderImages

    name = f"{FOLDER}{tree.path}"
    for other in all_prepared(data_dir):
        # Another process may have prepared this very tree by now.
        if other.name == name and not other.folder.parent.name.startswith(tree.variant):
            changed = f"{shown(name)} has changed since {shown(other.folder)} was made of it."
            print(changed, file=sys.stderr)
    variant = FolderImages.variant(tree, short_side)
    done = _write(name, FolderImages, variant, data_root(data_dir), tree.path)
    return done._replace(account=(*tree.account(), *done.account))


def _write(name: str, builder_class: Any, variant: Any, root: Path, originals: Path) -> Preparation:
    """Writes one variant (a builder's config, its name, or None) with a TFDS builder."""
    import tensorflow_datasets as tfds
    from absl import logging

    folder = root / builder_class.name
    _make_writable(folder, root)
    # TFDS announces a download and shows bars without an end; the builder shows its own.
    tfds.disable_progress_bar()
    logging.set_verbosity(logging.ERROR)  # it warns of every config that isn't in its list
    with (
        _alone(folder),
        tempfile.TemporaryDirectory() as downloads,
        open(os.devnull, "w", encoding="utf-8", errors="replace") as nowhere,
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
    about = build.info.metadata or {}
    account = _animations(about.get("first_frames", ()))
    return Preparation(done, f"{' + '.join(sizes)} images", about.get("left_out", {}), account)


def _make_writable(folder: Path, root: Path) -> None:
    """Makes a folder below the data directory, and tries to write to it."""
    try:
        os.fsencode(root).decode()  # array_record takes no other paths
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, UnicodeDecodeError) as error:
        fault = error.strerror if isinstance(error, OSError) else "the path is not UTF-8"
        raise FileError(
            f"Cannot write to {shown(root)} ({fault}). Give another folder as `data_dir`.",
            path=root,
        ) from error


def _animations(names: Sequence[str]) -> tuple[str, ...]:
    """A line on animations and files of several pages, whose first frame was taken."""
    if not names:
        return ()
    more = ", ..." if len(names) > EXAMPLES else ""
    return (f"took the first frame of {len(names):,}: {', '.join(names[:EXAMPLES])}{more}",)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a lock on the folder, so that one process at a time writes to it."""
    with open(folder / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
