"""The script `ppl-cnn`: `ppl-cnn sample ...` runs `python -m ppl_cnn.sample ...`, and so on."""

import ast
import difflib
import runpy
import sys
from contextvars import ContextVar
from importlib.resources import files

from ppl_cnn.options.terminal import speak_any_text

SCRIPT = "ppl-cnn"
running_as: ContextVar[str | None] = ContextVar("running_as", default=None)
"""The command as the script was called, such as "ppl-cnn sample"; None under `python -m`."""

COMMANDS = ("sample", "pretrain", "generator", "evidence", "report", "units", "data", "models")
"""The commands, each a module or package of ppl_cnn that `python -m` runs."""


def main() -> None:
    """Runs the command that the command line names, or prints the list of commands.

    The process exits with the command's code, or with 2 if there is no such command.
    """
    speak_any_text()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}."
        print(f"error: Unknown command {name!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    running_as.set(f"{SCRIPT} {name}")
    sys.argv = [SCRIPT, *arguments]
    # Run, not imported: `ppl_cnn.report` is also the name of a function.
    runpy.run_module(f"ppl_cnn.{name}", run_name="__main__", alter_sys=True)


def _help() -> str:
    """The usage line and each command with the first sentence of its module."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {_summary(name)}" for name in COMMANDS]
    return "\n".join(
        [f"usage: {SCRIPT} COMMAND [OPTIONS]", "", *lines, "", f"{SCRIPT} COMMAND --help explains."]
    )


def _summary(name: str) -> str:
    """The first line of a command's docstring, read without importing the command."""
    package = files("ppl_cnn")
    file = package / f"{name}.py"
    source = (file if file.is_file() else package / name / "__main__.py").read_text("utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.partition("\n")[0].partition(": `")[0].rstrip(".") + "."
