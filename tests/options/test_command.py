import dataclasses
import errno
import signal
import subprocess
import sys
import time
from typing import Annotated, TypedDict

import pytest
import tyro

from ppl_cnn import InputError
from ppl_cnn.options.command import run_command
from ppl_cnn.options.main import COMMANDS


@dataclasses.dataclass
class Nothing:
    """No options."""


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (InputError("Too large; give less."), 2, "error: Too large; give less.\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "draws"),
            2,
            "error: No space left on device (draws). Existing output is intact. "
            "Fix the problem and rerun the same command to resume.\n",
        ),
    ],
)
def test_failures_become_a_sentence_and_a_code(failure, code, said, monkeypatch, capsys):
    def action(options):
        raise failure

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as end:
        run_command(Nothing, action, prog="command", description="A command.")
    assert end.value.code == code
    assert capsys.readouterr().err == said


def test_a_platform_that_is_not_there_is_refused_in_a_sentence(monkeypatch, capsys):
    def missing():
        raise AssertionError

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr("jax.devices", missing)
    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as end:
        run_command(Nothing, lambda options: print("works"), prog="command", description=None)
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert said.err.startswith("error: JAX_PLATFORMS=cuda")
    assert "JAX_PLATFORMS=cpu" in said.err


class More(TypedDict, total=False):
    batch_size: int


@dataclasses.dataclass
class Some:
    """Options."""

    folder: tyro.conf.Positional[str] = "here"
    """The folder of the run, which
    the command reads."""
    max_draws: int = 1
    """How many draws."""
    network: Annotated[str, tyro.conf.arg(name="as")] = "lenet"
    more: Annotated[dict, tyro.conf.arg(constructor=More, name="")] = dataclasses.field(
        default_factory=dict
    )


def test_arguments_in_an_error_are_printed_as_the_commands_options(monkeypatch, capsys):
    def action(options):
        raise InputError("Give `max_draws=9` or `batch_size`; `folder`, `network`, `thin`: none.")

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit):
        run_command(Some, action, prog="command", description=None)
    said = "error: Give --max-draws 9 or --batch-size; `folder`, `network`, `thin`: none.\n"
    assert capsys.readouterr().err == said


def test_help_texts_are_paragraphs(monkeypatch, capsys):
    """Whose lines break where the terminal ends, not where the source does."""
    monkeypatch.setattr(sys, "argv", ["command", "--help"])
    with pytest.raises(SystemExit):
        run_command(Some, lambda options: None, prog="command", description=None)
    assert "The folder of the run, which the command reads." in capsys.readouterr().out


WORK = """
import dataclasses, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background job
from ppl_cnn.options.command import run_command

@dataclasses.dataclass
class Nothing:
    pass

def action(options):
    try:
        print("working", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        {then}

run_command(Nothing, action, prog="command", description=None)
"""


def signalled(then, *signals, script=WORK):
    """The exit code and stderr of a command at work that gets these signals."""
    script = [sys.executable, "-c", script.format(then=then)]
    pipe = subprocess.PIPE
    with subprocess.Popen(script, stdout=pipe, stderr=pipe, text=True) as process:
        for number in signals:
            assert process.stdout.readline() == "working\n"
            process.send_signal(number)
        said = process.communicate(timeout=600)[1]
    return process.returncode, said


def test_signals_stop_a_command_in_an_orderly_way():
    stopped = "\nStopped. The same command resumes the run.\n"
    assert signalled("raise", signal.SIGTERM) == (143, stopped)
    interrupted = "\nInterrupted. The same command resumes the run.\n"
    assert signalled("raise", signal.SIGINT) == (130, interrupted)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_what_python_cannot_interrupt(number, code):
    """A library that computes for minutes, as a compiler does, and what it has begun to compute."""
    import_ = "import hashlib; from concurrent.futures import ThreadPoolExecutor"
    minutes = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**8)"
    for work in (minutes, f"ThreadPoolExecutor().submit(lambda: {minutes}).result()"):
        script = WORK.replace("time.sleep(60)", f"{import_}; {work}")
        script = script.replace("description=None", "description=None, patience=0.5")
        began = time.monotonic()
        assert signalled("raise", number, script=script)[0] == code
        assert time.monotonic() - began < 20


def test_a_second_signal_kills():
    hanging = "print('working', flush=True); time.sleep(60)"
    assert signalled(hanging, signal.SIGTERM, signal.SIGTERM) == (-signal.SIGTERM, "")


CUT_OFF = """
import asyncio, dataclasses
from ppl_cnn import InputError
from ppl_cnn.options.command import run_command

@dataclasses.dataclass
class Nothing:
    pass

loop = asyncio.new_event_loop()

async def write(turn):
    async with turn:
        await asyncio.sleep(60)

def action(options):
    turn = asyncio.Semaphore(1)
    loop.tasks = [loop.create_task(write(turn)) for _ in range(2)]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    raise InputError("Too large.")

run_command(Nothing, action, prog="command", description=None)
"""


def test_writes_that_were_cut_off_do_not_complain():
    """As Zarr's, which wait for each other in an event loop that ends."""
    done = subprocess.run([sys.executable, "-c", CUT_OFF], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: Too large.\n")


def test_the_handler_of_signals_is_put_back(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])
    before = signal.getsignal(signal.SIGTERM)
    run_command(Nothing, lambda options: None, prog="command", description=None)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("command", COMMANDS)
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
