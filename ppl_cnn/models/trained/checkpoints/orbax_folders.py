"""Reads the arrays of an Orbax checkpoint, whichever of its folders is given."""

from pathlib import Path

import numpy as np

from ppl_cnn.errors import FileError, one_line

_METADATA = "_METADATA"
"""The file that tells a folder of arrays from one of steps or of items."""


def read_orbax(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by their paths, such as "blocks.0.conv.kernel".

    Args:
        folder: what a checkpointer saved; a step of a checkpoint manager, whose only item of
            arrays it is; or the manager's folder, whose last step it is. Names begin with
            an item's where a step has several.

    Raises:
        FileError: the folder holds no intact checkpoint.
    """
    step = folder if _is_step(folder) else _last_step(folder)
    if (step / _METADATA).is_file():
        return _arrays(step)
    items = sorted(path.parent for path in step.glob(f"*/{_METADATA}"))
    if not items:
        raise FileError(
            f"{folder} holds no Orbax checkpoint of a state: neither it nor a folder in it has the "
            f"file {_METADATA}.",
            path=folder,
        )
    if len(items) == 1:
        return _arrays(items[0])
    return {f"{item.name}.{name}": array for item in items for name, array in _arrays(item).items()}


def _is_step(folder: Path) -> bool:
    return (folder / _METADATA).is_file() or any(folder.glob(f"*/{_METADATA}"))


def _last_step(folder: Path) -> Path:
    """The step of the largest number, "7" or "step_7"; the folder itself if there is none."""
    steps = {
        int(digits): path
        for path in folder.iterdir()
        if path.is_dir() and _is_step(path)
        if (digits := path.name.rpartition("_")[2]).isdecimal()
    }
    return steps[max(steps)] if steps else folder


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    import jax
    import orbax.checkpoint as ocp

    from ppl_cnn.models.trained.modules.captured import named_leaves

    checkpointer = ocp.PyTreeCheckpointer()
    try:
        tree = checkpointer.metadata(folder.absolute()).item_metadata.tree
        # NumPy arrays can be restored whatever devices they were saved from.
        wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return named_leaves(checkpointer.restore(folder.absolute(), restore_args=wanted))[0]
    except Exception as error:
        raise FileError(
            f"{folder} is no intact Orbax checkpoint of a state ({one_line(error)}).", path=folder
        ) from error
