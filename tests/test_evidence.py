import json
import math
from functools import partial

import pytest

import ppl_cnn
from ppl_cnn.machines import arithmetic

SETTINGS = ("--chains", "4", "--draws", "10", "--warmup", "10", "--rungs", "1")


@pytest.fixture
def evidence(command):
    return partial(command, "ppl_cnn.evidence")


CLASSES = [f"fc8:{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("conv1:0-1", ["conv1:0@14,14", "conv1:1@14,14"]),
        pytest.param("fc8:0-9", CLASSES, marks=pytest.mark.long),
    ],
)
def test_it_prints_a_table_and_writes_it(text, units, tmp_path, evidence):
    out = tmp_path / "run"
    few = ("--particles", "8", "--temperatures", "5")
    white = ("--reference", "white:10")
    done = evidence("--unit", text, *white, *SETTINGS, *few, "--out", str(out))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == str(out / "evidence.json")
    record = json.loads((out / "evidence.json").read_text())
    assert list(record) == units
    value = record[units[1]]["thermodynamic integration"]["value"]
    assert any(line.startswith(units[1]) and f"{value:.4f}" in line for line in lines)
    # The offsets need all classes' log Z.
    assert any(line.startswith("Ankle boot") for line in lines) == (units == CLASSES)


def test_bad_settings_end_with_a_sentence(tmp_path, evidence):
    done = evidence("--unit", "fc8:0", *SETTINGS, "--rungs", "0", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "rungs" in done.stderr
    assert "not 0" in done.stderr
    assert "Traceback" not in done.stderr


def test_under_images_it_is_their_mean_beside_the_stored_alpha(tmp_path, evidence):
    out = tmp_path / "run"
    given = (
        "--unit",
        "fc8:0-9",
        "--reference",
        "data:fashion-embedded@test[:200]",
        "--target",
        "logit",
    )
    done = evidence(*given, "--out", str(out))
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "evidence.json").read_text())
    assert list(record) == CLASSES
    found = record["fc8:9"]["mean over images"]
    assert found["images"] == 200
    assert found["error"] > 0
    assert f"{found['value']:.4f}" in done.stdout
    (boot,) = [line for line in done.stdout.splitlines() if line.startswith("Ankle boot")]
    alpha, _, _, stored, difference = boot.removeprefix("Ankle boot").split()
    assert float(alpha) == pytest.approx(-found["value"] - math.log(10), abs=2e-4)
    assert float(stored) == pytest.approx(float(ppl_cnn.load("alexnet-fashion").alpha[9]), abs=1e-4)
    assert float(difference) == pytest.approx(float(alpha) - float(stored), abs=2e-4)
    assert done.stdout.splitlines()[-1] == str(out / "evidence.json")


def test_the_same_bits_are_asked_for_before_and_after_jax_is_used(tmp_path, evidence, monkeypatch):
    asked = []
    monkeypatch.setattr(arithmetic, "repeatable", lambda: asked.append("flags"))
    monkeypatch.setattr(arithmetic, "keep_programs", asked.append)
    given = ("--unit", "fc8:0", "--reference", "data:fashion-embedded@test[:9]", "--deterministic")
    done = evidence(*given, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert asked == ["flags", tmp_path / "run" / ".programs"]
