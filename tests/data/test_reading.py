"""Reading ahead, by threads and by processes of their own."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ppl_cnn.data import open_split, reading, training_batches
from ppl_cnn.data.reading import Readers
from ppl_cnn.errors import ArgumentError, FileError


@pytest.mark.parametrize(
    ("cores", "asked", "chosen"),
    [
        (2, {}, (0, 2)),
        (15, {}, (0, 15)),
        (16, {}, (2, 8)),
        (96, {}, (12, 8)),
        (96, {"varies": False}, (0, 1)),
        (96, {"images": 50_000}, (10, 8)),
        (96, {"images": 4_999}, (0, 96)),
        (4, {"processes": 3}, (3, 1)),
        (96, {"processes": 2, "threads": 5}, (2, 5)),
        (96, {"processes": 1, "varies": False}, (1, 1)),
    ],
)
def test_readers_by_the_number_of_cores(cores, asked, chosen, monkeypatch):
    monkeypatch.setattr(reading, "usable_cores", lambda: cores)
    monkeypatch.setattr(reading, "_shared_memory", lambda: 2**40)
    wanted = {"processes": None, "threads": None, "varies": True} | asked
    processes, threads = wanted.pop("processes"), wanted.pop("threads")
    assert Readers.chosen(processes, threads, **wanted) == chosen


def test_without_shared_memory_there_are_no_processes(monkeypatch):
    monkeypatch.setattr(reading, "usable_cores", lambda: 96)
    monkeypatch.setattr(reading, "_shared_memory", lambda: 64 * 2**20)
    assert Readers.chosen(None, None, varies=True) == (0, 96)
    assert Readers.chosen(1, None, varies=True).processes == 1


def test_fewer_than_no_readers(refused):
    data = open_split("fashion-embedded", "train[:50]")
    with refused("`readers=-1`", kind=ArgumentError, argument="readers"):
        training_batches(data, 10, 0, readers=-1)


def bits(iterator, count: int) -> list[tuple[bytes, bytes]]:
    read = [next(iterator) for _ in range(count)]
    return [(batch["image"].tobytes(), batch["label"].tobytes()) for batch in read]


def test_processes_read_the_same_bits_and_continue_each_others_batches():
    data = open_split("fashion-embedded", "train[:100]")

    def loader(readers: int = 0):
        return training_batches(data, 24, 3, augment="crop+flip", readers=readers)

    one = loader()
    began, state = bits(one, 5), json.loads(json.dumps(one.get_state()))
    rest = bits(one, 6)
    two = loader(2)
    two.set_state(state)
    batch = next(two)
    assert type(batch["image"]) is np.ndarray  # not in memory that grain takes back
    assert [(batch["image"].tobytes(), batch["label"].tobytes()), *bits(two, 5)] == rest
    assert two.get_state() == one.get_state()
    two.close()
    assert next(two, None) is None
    one.set_state({"next_index": 0})
    assert bits(one, 5) == began


def test_errors_come_from_processes_as_they_were():
    for error in (FileError("a file", path="x"), ArgumentError("an argument", argument="a")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


KILLED = """
import multiprocessing, os, sys
from ppl_cnn.data import open_split, training_batches
if __name__ == "__main__":
    loader = training_batches(open_split("fashion-embedded", "train[:100]"), 10, 0, readers=1)
    next(loader)
    (child,) = multiprocessing.active_children()
    print(child.pid, flush=True)
    if sys.argv[1] == "child":
        child.kill()
        try:
            while True:
                next(loader)
        except ValueError as error:
            print(error)
    else:
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("who", ["child", "parent"])
def test_whoever_is_killed_the_other_ends(who, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), who]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    child, *said = done.stdout.splitlines()
    if who == "child":
        assert done.returncode == 0, done.stderr
        assert "`readers=0`" in said[0]
        assert str(-signal.SIGKILL) in said[0]
    else:
        assert done.returncode == -signal.SIGKILL
    for _ in range(100):
        try:
            os.kill(int(child), 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the process that reads is still there")
