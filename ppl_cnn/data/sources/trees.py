"""TFDS builder of a tree of class folders; `ppl_cnn.data.sources.folders` says what one is."""

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


@dataclass
class TreeConfig(PhotographConfig):
    """A variant: one tree in one state."""

    tree: Tree | None = None


class FolderImages(PhotographBuilder):
    """The images of a tree, stored as they are."""

    RELEASE_NOTES: ClassVar = {"1.0.0": "From class folders."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "the tree that the config names is read"
    DESCRIPTION = "Images of class folders."
    builder_config: TreeConfig

    @classmethod
    def variant(cls, tree: Tree, short_side: int | None) -> TreeConfig:
        """The tree in the state in which it was listed, whole or with shorter sides."""
        check_short_side(short_side)
        name = tree.variant if short_side is None else f"{tree.variant}-short-{short_side}"
        return TreeConfig(name=name, description=str(tree.path), short_side=short_side, tree=tree)

    def _info(self) -> tfds.core.DatasetInfo:
        info = super()._info()
        info.metadata["tree"] = str(self._tree.path)
        return info

    def labels(self) -> tuple[str, ...]:
        """The class folders' names, sorted."""
        return self._tree.classes

    def photographs(self, folder: Path, split: str) -> Iterator[Photograph]:
        """The split's images in the order of their paths."""
        for name, label in self._tree.splits[split]:
            yield Photograph(name, label, self._tree.path / name)

    @property
    def _tree(self) -> Tree:
        tree = self.builder_config.tree
        assert tree is not None, "only `variant` makes configs, and it gives them one"
        return tree
