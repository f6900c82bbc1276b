import dataclasses
import io
import os
import sys

import pytest

from ppl_cnn.options.command import run_command
from ppl_cnn.options.main import main


@dataclasses.dataclass
class Nothing:
    """No options."""


def command():
    run_command(Nothing, lambda options: print("the result"), prog="command", description=None)


@pytest.fixture
def unread():
    """A pipe whose reader has ended, as of `command | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:
        yield stream


@pytest.mark.parametrize(
    ("entry", "arguments"), [(command, []), (command, ["--help"]), (main, ["--help"])]
)
def test_a_command_whose_output_is_no_longer_read_ends_without_a_word(
    entry, arguments, unread, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "stdout", unread)
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as end:
        entry()
    monkeypatch.undo()
    assert end.value.code == 141
    assert capsys.readouterr().err == ""
    unread.flush()  # as Python does at its end


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_output_that_cannot_be_written_is_one_sentence(monkeypatch, capsys):
    with open("/dev/full", "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", ["command"])
        with pytest.raises(SystemExit) as end:
            command()
        monkeypatch.undo()
    assert end.value.code == 2
    said = "error: Standard output can't be written (No space left on device).\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_streams_that_the_shell_has_closed_are_no_failure(arguments, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    if arguments:
        with pytest.raises(SystemExit, match="0"):
            command()
    else:
        command()
    opened = (sys.stdout, sys.stderr)
    monkeypatch.undo()
    for stream in opened:
        assert isinstance(stream, io.TextIOWrapper)
        stream.close()
