"""Builds the report of a run again from its stored draws.

Examples:
    python -m ppl_cnn.report runs/trouser
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from ppl_cnn.options.command import run_command


@dataclass(frozen=True)
class ReportOptions:
    """Options of the report."""

    folder: tyro.conf.Positional[Path]
    """A run of `python -m ppl_cnn.sample`, finished or not; in a run of several units, also the
    folder of one unit."""


def main(options: ReportOptions) -> None:
    """Builds the report and prints its path."""
    from ppl_cnn.inference.report.page import report

    print(report(options.folder))


if __name__ == "__main__":
    run_command(ReportOptions, main, prog="python -m ppl_cnn.report", description=__doc__)
