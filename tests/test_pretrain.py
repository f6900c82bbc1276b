import json
import subprocess
import sys

import pytest

import ppl_cnn


def test_the_command_trains_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    arguments = ("--stages", "generative:1@0.02", "--batch-size", "250", "--out", str(out))
    line = [sys.executable, "-m", "ppl_cnn.pretrain", *arguments]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0
    assert "test error" in done.stdout
    assert f"--model {out}" in done.stdout
    assert "Warning" not in done.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["stages"] == "generative:1@0.02"
    assert record["config"]["network"] == "lenet"
    assert record["command"] == " ".join(["python -m ppl_cnn.pretrain", *arguments])
    assert ppl_cnn.load(out).unit("fc4:3").shape == (28, 28, 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config", "nosuch"], "There is no recipe 'nosuch'"),
        (["--network", "nosuch"], "no network 'nosuch'"),
        (["--data", "nosuch"], "'nosuch'"),
        (["--stages", "magic:3"], "is no stage"),
        (["--batch-size", "7000"], "larger than"),
        (["--out", "/dev/null/run"], "can't be written to"),
    ],
)
def test_bad_input_gets_a_sentence_and_exit_code_2(arguments, sentence, command):
    done = command("ppl_cnn.pretrain", *arguments)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    assert sentence in lines[0]
    assert lines[0].startswith("error: ")
    assert lines[0].endswith(".")
