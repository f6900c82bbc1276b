"""Builds the report of a run again from its stored draws.

Examples:
    python -m ppl_cnn.report runs/trouser
    python -m ppl_cnn.report runs/trouser-split --against runs/trouser-resample
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
    against: Path | None = None
    """Another run of the same units and density, by another kernel or seed. The page then tells how
    far both agree: mean and standard deviation of the response, log Z where it is known, and
    projections of the image, in standard errors."""


def main(options: ReportOptions) -> None:
    """Builds the report and prints its path."""
    from ppl_cnn.inference.report.page import report

    print(report(options.folder, against=options.against))


if __name__ == "__main__":
    run_command(ReportOptions, main, prog="python -m ppl_cnn.report", description=__doc__)
