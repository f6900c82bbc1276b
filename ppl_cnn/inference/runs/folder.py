"""A run's folder: who may write to it, and its record, `run.json`."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppl_cnn.errors import RunFolderError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.runs.lock import locked
from ppl_cnn.inference.runs.record import ARGUMENTS, read_record, same_setting, versions


class RunFolder:
    """A folder that one run at a time writes to, with `run.json` saying what made it.

    Args:
        path: the folder.
        record: the content of its `run.json`.
        writer: whether this process writes the record; one of several processes does.
    """

    def __init__(self, path: Path, record: dict[str, Any], *, writer: bool = True) -> None:
        self.path = path
        self.record = record
        self.writer = writer

    @classmethod
    @contextlib.contextmanager
    def claim(
        cls, path: Path, config: Mapping[str, Any], command: str, *, writer: bool = True
    ) -> Iterator["RunFolder"]:
        """Makes the folder, or opens the one that the same run has left, and locks it.

        Args:
            path: the folder.
            config: what determines the run's result, as JSON. A folder with another is refused.
            command: how the run was started, for the record.
            writer: whether this process writes the record; one of several processes does.

        Raises:
            RunFolderError: the folder holds another run or other files, can't be written to, or
                another process is writing to it.
        """
        if not writer:
            yield cls(path, {}, writer=False)
            return
        config = json.loads(json.dumps(config))
        _check_free(path)
        with locked(path):
            if (path / "run.json").exists():
                record = read_record(path)
                _check_whole(path, record["config"], config)
                _check_same(path, record["config"], config)
            else:
                record = {"config": config, "command": command, "versions": versions()}
            folder = cls(path, record)
            folder.update()
            yield folder

    def made(self, attributes: Mapping[Any, Any]) -> bool:
        """Whether this run made a store with these attributes.

        Their field `part_of` may differ: the folder of a run of several units may be renamed.
        """
        config = attributes.get("config")
        if not isinstance(config, dict):
            return False
        return {**config, "part_of": ""} == {**self.record["config"], "part_of": ""}

    def update(self, **fields: Any) -> None:
        """Sets fields of the record; the writer writes `run.json`."""
        self.record |= fields
        if not self.writer:
            return
        write_aside(self.path / "run.json", json.dumps(self.record, indent=2).encode())


def _check_free(path: Path) -> None:
    """Refuses a folder that holds files, but no run. Hidden files don't count."""
    try:
        names = [item.name for item in path.iterdir()] if path.is_dir() else []
    except OSError as error:
        raise RunFolderError(
            f"{path} can't be read ({error.strerror}). Give another `out`.", path=path
        ) from None
    others = [name for name in names if not name.startswith(".")]
    if others and "run.json" not in others:
        raise RunFolderError(
            f"{path} holds no run, but other files ({others[0]}). Give another `out`.", path=path
        )


def _check_whole(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuses a unit's folder of a run of several units: only that run may resume it."""
    if "part_of" in old and "part_of" not in new:
        raise RunFolderError(
            f"{path} is a unit's folder of {path.absolute().parent}. Resume that run of several "
            f"units, or give another `out`.",
            path=path,
        )


def _check_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for key in {**old, **new}:
        if not same_setting(key, old.get(key), new.get(key)):
            name = ARGUMENTS.get(key, key)
            raise RunFolderError(
                f"{path} holds a run with {name} {old.get(key)}, not {new.get(key)}. Give the "
                f"same settings to resume it, or another `out`.",
                path=path,
            )
