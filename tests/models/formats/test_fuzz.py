import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def python(*arguments):
    line = [sys.executable, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=600, cwd=ROOT)


@pytest.mark.parametrize(
    "reader",
    [
        *("torch", "pickle", "caffe", "npz", "npy", "safetensors", "foreign"),
        *("index", "onnx", "graph"),
    ],
)
def test_some_cases_of_each_reader(reader):
    run = python("-m", "tests.models.formats.fuzz", reader, "--cases", 1000, "--mutate")
    assert run.returncode == 0, run.stderr
    assert f"{reader}: 1,000 cases" in run.stdout


@pytest.mark.parametrize(
    ("misdeed", "words"),
    [
        ("open('/dev/null')", "caused open"),
        ("__import__('os').system('true')", "caused os.system"),
        ("__import__('tty')", "caused import"),
        ("eval('1')", "caused compile"),
        ("{}", "neither tensors nor an error"),
        ("burn() and {'a': np.ones(1)}", "1.1"),
        ("refuse('is one. Two. Three.')", "more than two sentences"),
        ("refuse('')", "not a sentence"),
        ("refuse('has no end')", "not a sentence"),
    ],
)
def test_the_fuzzer_notices_what_a_reader_must_not_do(misdeed, words):
    script = f"""
import os, sys, time, numpy as np
from ppl_cnn.models.formats import ContentError
from tests.models.formats import fuzz
def burn(): return any(time.process_time() > start + 1.1 for _ in iter(int, 1))
def refuse(fault): raise ContentError(fault)
sys.addaudithook(fuzz.watch)
start = time.process_time()
fuzz.check(fuzz.Reader(lambda content: {misdeed}, fuzz.are_tensors), b"")
"""
    run = python("-c", script)
    assert run.returncode == 1
    assert "Broken" in run.stderr
    assert words in run.stderr
