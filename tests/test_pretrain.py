import json
import re
from dataclasses import fields

import pytest
import tyro

import ppl_cnn
from ppl_cnn.data import DATA_SETS
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.recipe import DTYPES, Recipe, recipe_names
from ppl_cnn.inference.training.schedule import SCHEDULES
from ppl_cnn.inference.training.stages import OBJECTIVES
from ppl_cnn.machines.processes import Processes
from ppl_cnn.pretrain import PretrainOptions


def test_the_command_trains_and_says_how_to_go_on(tmp_path, command):
    out = tmp_path / "run"
    arguments = ("--stages", "generative:6steps@0.02", "--batch-size", "50", "--out", str(out))
    done = command("ppl_cnn.pretrain", *arguments)
    assert done.returncode == 0, done.stderr
    assert "test error" in done.stdout
    assert f"--model {out}" in done.stdout
    assert "Warning" not in done.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["config"]["stages"] == "generative:6steps@0.02"
    assert record["config"]["network"] == "lenet"
    assert record["command"] == " ".join(["python -m ppl_cnn.pretrain", *arguments])
    assert ppl_cnn.load(out).unit("fc4:3").shape == (28, 28, 1)


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--config", "nosuch"], ["'nosuch'", "lenet"]),
        (["--network", "nosuch"], ["'nosuch'"]),
        (["--network", "resnet18", "--data", "nosuch"], ["resnet18", "batch normalizations"]),
        (["--data", "nosuch"], ["'nosuch'"]),
        (["--stages", "magic:3"], ["'magic:3'"]),
        (["--batch-size", "7000"], ["7000", "6000"]),
        (["--keep", "0"], ["at least 1"]),
        (["--out", "/dev/null/run"], ["/dev/null/run"]),
    ],
)
def test_bad_input_gets_a_sentence_and_exit_code_2(arguments, facts, command):
    done = command("ppl_cnn.pretrain", *arguments)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    for fact in facts:
        assert fact in lines[0]
    assert lines[0].startswith("error: ")
    assert lines[0].endswith(".")


def test_the_options_are_the_recipes_and_the_executions_own(command):
    """Each field once, with its docstring; choices and names come from the registries."""
    said = command("ppl_cnn.pretrain", "--help").stdout
    text = " ".join(said.replace("│", " ").split())
    for kind in (Recipe, Execution, Processes):
        for field in fields(kind):
            option = re.escape(field.name.replace("_", "-"))
            assert len(re.findall(rf" --{option}(?: [A-Z{{]|,)", text)) == 1, option
    assert f"{{{','.join(SCHEDULES)}}}" in text
    assert f"{{{','.join(DTYPES)}}}" in text
    for name in (*OBJECTIVES, *DATA_SETS, *recipe_names()):
        assert name in text
    assert "lengths are 8 (epochs), 500steps, 50000images, or 65% (of --total)" in text.lower()


def test_given_options_alone_override_the_recipe():
    options = tyro.cli(PretrainOptions, args=["--rate", "0.5", "--keep", "3"])
    assert options.recipe == {"rate": 0.5}
    assert options.execution == {"keep": 3}
    assert options.processes == {}
