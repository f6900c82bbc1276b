"""TFDS builder of a tree of class folders; see `ppl_cnn.data.sources.folders` for the layout."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from ppl_cnn.data.sources.folders import Tree
from ppl_cnn.data.sources.photographs import (
    Photograph,
    PhotographBuilder,
    PhotographConfig,
    check_short_side,
)
from ppl_cnn.errors import shown


@dataclass
class TreeConfig(PhotographConfig):
    """A config (variant) of `FolderImages`: one tree in one state."""

    tree: Tree | None = None
    """The tree; always set by `FolderImages.variant`."""


class FolderImages(PhotographBuilder):
    """The images of a tree of class folders, whole or with shorter short sides."""

    RELEASE_NOTES: ClassVar = {"1.0.0": "From class folders."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The config names the tree to read."
    DESCRIPTION = "Images of class folders."
    builder_config: TreeConfig

    @classmethod
    def variant(cls, tree: Tree, short_side: int | None) -> TreeConfig:
        """The config of a tree in the state in which it was listed.

        Args:
            tree: the listed tree.
            short_side: the length in pixels that longer short sides are scaled down to.

        Raises:
            ArgumentError: `short_side` is too small.
        """
        check_short_side(short_side)
        name = tree.variant if short_side is None else f"{tree.variant}-short-{short_side}"
        return TreeConfig(name=name, description=shown(tree.path), short_side=short_side, tree=tree)

    def _info(self) -> tfds.core.DatasetInfo:
        info = super()._info()
        info.metadata["tree"] = str(self._tree.path)
        return info

    def labels(self) -> tuple[str, ...]:
        """The names of the class folders, sorted."""
        return self._tree.classes

    def splits(self) -> tuple[str, ...]:
        """`train` and `test`, and `validation` between them if the tree has all three."""
        return tuple(self._tree.splits)

    def photographs(self, folder: Path, split: str) -> Iterator[Photograph]:
        """The images of a split, in the order of their paths."""
        for path, label in self._tree.splits[split]:
            yield Photograph(shown(path), label, self._tree.path / path)

    @property
    def _tree(self) -> Tree:
        tree = self.builder_config.tree
        assert tree is not None, "only `variant` makes configs, and it gives them one"
        return tree
