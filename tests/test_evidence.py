import json
from functools import partial

import pytest

SETTINGS = ("--chains", "4", "--draws", "10", "--warmup", "10", "--rungs", "1")


@pytest.fixture
def evidence(command):
    return partial(command, "ppl_cnn.evidence")


@pytest.mark.parametrize("classes", [2, pytest.param(10, marks=pytest.mark.long)])
def test_it_prints_a_table_and_writes_it(classes, tmp_path, evidence):
    out = tmp_path / "run"
    few = ("--particles", "8", "--temperatures", "5")
    done = evidence("--unit", f"fc8:0-{classes - 1}", *SETTINGS, *few, "--out", str(out))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == str(out / "evidence.json")
    record = json.loads((out / "evidence.json").read_text())
    assert list(record) == [f"fc8:{number}" for number in range(classes)]
    value = record["fc8:1"]["thermodynamic integration"]["value"]
    assert any(line.startswith("fc8:1") and f"{value:.4f}" in line for line in lines)
    # The offsets need all classes' log Z.
    assert any(line.startswith("Ankle boot") for line in lines) == (classes == 10)


def test_bad_settings_end_with_a_sentence(tmp_path, evidence):
    done = evidence("--unit", "fc8:0", *SETTINGS, "--rungs", "0", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "rungs" in done.stderr
    assert "not 0" in done.stderr
    assert "Traceback" not in done.stderr
