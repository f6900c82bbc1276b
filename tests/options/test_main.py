import importlib
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from ppl_cnn.options.main import COMMANDS

ROOT = Path(__file__).parents[2]


def called(*arguments):
    """`ppl-cnn ARGUMENTS`, by the function that the installed script calls."""
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["ppl-cnn"]
    module, function = entry.split(":")
    script = f"import sys\nfrom {module} import {function}\n{function}()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )


def test_help_lists_each_command_with_a_line_in_no_time():
    began = time.monotonic()
    done = called("--help")
    assert time.monotonic() - began < 5  # 0.1 seconds on an idle machine
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert tuple(lines) == COMMANDS
    for name, line in lines.items():
        assert line.endswith("."), line
        assert len(line.split()) > 3, name
    assert called().stdout == done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_one_of_python_m(name):
    """And its usage line is that of the script."""
    assert importlib.util.find_spec(f"ppl_cnn.{name}") is not None
    done = called(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: ppl-cnn {name}")


def test_arguments_and_exit_codes_are_the_commands():
    done = called("report", "/nosuch")
    assert done.returncode == 2
    assert "/nosuch" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_command_gets_a_sentence_and_exit_code_2():
    done = called("smaple")
    assert done.returncode == 2
    assert done.stderr == "error: Unknown command 'smaple'; did you mean sample?\n"
    assert "sample, pretrain" in called("qqq").stderr
