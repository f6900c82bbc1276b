"""A run's folder: its lock, and who may write to it."""

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ppl_cnn.errors import InputError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.runs.record import read_record, versions

_NOW_CALLED = {("init", "two-sided"): "two-sided:rto"}
"""Settings that earlier versions recorded by another text."""


class RunFolder:
    """A folder that one run at a time writes to, with `run.json` saying what made it."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self.record = record

    @classmethod
    @contextlib.contextmanager
    def claim(
        cls, path: Path, config: Mapping[str, Any], command: str, writer: bool = True
    ) -> Iterator["RunFolder"]:
        """Makes the folder, or opens the one that the same run has left, and keeps others out.

        Args:
            path: the folder.
            config: what determines the run's result; a folder made by another is refused.
            command: how the run was started, for the record.
            writer: whether this process writes the record; of several processes, one does.

        Raises:
            InputError: the folder holds something else, can't be written to, or a run is
                writing to it now.
        """
        if not writer:
            yield cls(path, {})
            return
        config = json.loads(json.dumps(config))
        with _locked(path):
            if (path / "run.json").exists():
                record = read_record(path)
                if "part_of" in record["config"] and "part_of" not in config:
                    raise InputError(
                        f"{path} is a unit's folder of {path.absolute().parent}: continue that "
                        f"run of several units, or give another --out."
                    )
                _check_same(path, record["config"], config)
            else:
                record = {"config": config, "command": command, "versions": versions()}
            folder = cls(path, record)
            folder.update()
            yield folder

    def made(self, attributes: Mapping[Any, Any]) -> bool:
        """Whether a store with these attributes is of this run, that may have been renamed."""
        config = attributes.get("config")
        if not isinstance(config, dict):
            return False
        return {**config, "part_of": ""} == {**self.record["config"], "part_of": ""}

    def update(self, **fields: Any) -> None:
        """Adds fields to `run.json`."""
        self.record |= fields
        write_aside(self.path / "run.json", json.dumps(self.record, indent=2).encode())


def _lock_file(path: Path) -> IO[str]:
    """Makes the folder, unless it holds something else, and opens its lock."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        others = [item.name for item in path.iterdir() if not item.name.startswith(".")]
        if others and "run.json" not in others:
            raise InputError(
                f"{path} holds no run, but other files ({others[0]}); give another --out."
            )
        return open(path / ".lock", "w")
    except OSError as error:
        raise InputError(
            f"{path} can't be written to ({error.strerror}); give another --out."
        ) from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the folder's lock."""
    with _lock_file(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Another run is writing to {path}; wait for it or give another --out."
            ) from None
        yield


def _check_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    old = {key: _NOW_CALLED.get((key, str(value)), value) for key, value in old.items()}
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            raise InputError(
                f"{path} holds a run with {key} {old.get(key)}, not {new.get(key)}: "
                f"give the same settings to continue it, or another --out."
            )
