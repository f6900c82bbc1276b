import dataclasses
import errno
import subprocess
import sys

import pytest

from ppl_cnn import InputError
from ppl_cnn.command import run_command


@dataclasses.dataclass
class Nothing:
    """No options."""


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (InputError("Too large; give less."), 2, "error: Too large; give less.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "draws"), 2, "No space left on device"),
        (KeyboardInterrupt(), 130, "Interrupted"),
    ],
)
def test_failures_become_a_sentence_and_a_code(failure, code, said, monkeypatch, capsys):
    def action(options):
        raise failure

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as end:
        run_command(Nothing, action, "command", "A command.")
    assert end.value.code == code
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("command", ["sample", "pretrain", "units", "report", "data"])
def test_help_loads_nothing_heavy(command):
    """What makes `--help` answer at once."""
    script = (
        "import runpy, sys\n"
        "sys.argv[1:] = ['--help']\n"
        "try:\n"
        f"    runpy.run_module('ppl_cnn.{command}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "heavy = {'jax', 'flax', 'numpyro', 'arviz', 'tensorflow_datasets', 'orbax'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout
