"""Builds a run's report again from its stored draws: `python -m ppl_cnn.report runs/trouser`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from ppl_cnn.options.command import run_command


@dataclass(frozen=True)
class Report:
    """Options."""

    folder: tyro.conf.Positional[Path]
    """A run of `python -m ppl_cnn.sample`, or a unit's folder in a run of several; finished or
    not."""


def main(config: Report) -> None:
    """Builds the report and prints its path."""
    from ppl_cnn.inference.report.page import build_report

    print(build_report(config.folder))


if __name__ == "__main__":
    run_command(Report, main, prog="python -m ppl_cnn.report", description=__doc__)
