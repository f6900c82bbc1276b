"""What every command does around its work: parse, run, and turn failures into one sentence."""

import sys
from collections.abc import Callable
from typing import Any

import tyro

from ppl_cnn import InputError


def run_command(
    config_type: Any, action: Callable[[Any], None], prog: str, description: str | None
) -> None:
    """Parses the command line into `config_type`, runs `action` on it and exits.

    The exit code is 0, 2 after one sentence on stderr if the input can't be used, or 130 if it
    was interrupted.

    Args:
        config_type: a dataclass, or a union of them for subcommands.
        action: the work.
        prog: how the command is called, for the usage line.
        description: what `--help` says first, usually the module's docstring.
    """
    config = tyro.cli(config_type, prog=prog, description=description)
    try:
        action(config)
    except InputError as error:
        sys.exit(_fail(str(error)))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(
            _fail(
                f"{error.strerror or error}{where}: what was written before is whole; "
                f"once that is mended, the same command goes on."
            )
        )
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on.", file=sys.stderr)
        sys.exit(130)


def _fail(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2
