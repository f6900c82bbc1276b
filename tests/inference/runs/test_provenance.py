import hashlib
import json
import os
from pathlib import Path

import ppl_cnn
from ppl_cnn.data import open_split
from ppl_cnn.inference.runs.provenance import session, source
from ppl_cnn.inference.training.loop import data_record


def test_a_session_says_with_what_it_ran(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS_OF_NOBODY", "given")
    monkeypatch.setenv("AWS_SECRET", "kept to oneself")
    told = json.loads(json.dumps(session(40, "the command")))
    assert (told["step"], told["command"], told["processes"]) == (40, "the command", 1)
    assert told["devices"] == {"kind": "cpu", "count": 1}
    assert told["host"]["cores"] == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert session(40, "the command")["host"]["cores"] == os.cpu_count()
    assert told["environment"]["XLA_FLAGS_OF_NOBODY"] == "given"
    assert "kept to oneself" not in str(told)
    assert {"jax", "jaxlib", "optax", "grain"} <= set(told["versions"])


def test_the_source_is_told_by_a_digest_of_all_modules():
    folder = Path(ppl_cnn.__file__).parent
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(files, key=lambda name: Path(name)):
        digest.update(name.encode() + b"\0" + files[name].read_bytes())
    assert source()["sha256"] == digest.hexdigest()


def test_data_is_told_by_identity_and_sizes():
    train, test = (open_split("fashion-embedded", name) for name in ("train", "test"))
    assert data_record(train, test) == {
        "name": "fashion-embedded",
        "identity": train.identity,
        "classes": 10,
        "splits": {"train": 6000, "test": 1000},
    }
    assert "1.0.0" in train.identity
