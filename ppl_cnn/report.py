"""Builds the report of a run again from its stored draws.

Examples:
    python -m ppl_cnn.report runs/trouser
    python -m ppl_cnn.report runs/trouser-split --against runs/trouser-resample
    python -m ppl_cnn.report runs/trouser --exemplars fashion-embedded@test
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
    exemplars: str | None = None
    """A folder of photographs, or a data set as NAME[@SPLIT] or folder:PATH. The page shows the
    nine images to which each unit responds most, cropped to its receptive field. They are kept in
    the run's folder, so that later reports show them without this option."""


def main(options: ReportOptions) -> None:
    """Builds the report and prints its path."""
    from ppl_cnn.inference.report.page import report

    if options.exemplars is not None:
        _find_exemplars(options.folder, options.exemplars)
    print(report(options.folder, against=options.against))


def _find_exemplars(folder: Path, text: str) -> None:
    """Searches a set of images, and saves what was found beside the draws."""
    from ppl_cnn.inference.sampling.exemplars.reopened import reopened
    from ppl_cnn.inference.sampling.exemplars.search import find_exemplars
    from ppl_cnn.inference.sampling.exemplars.sources import parse_source

    source = parse_source(text)
    network, units = reopened(folder)
    find_exemplars(folder, network, units, source)


if __name__ == "__main__":
    run_command(ReportOptions, main, prog="python -m ppl_cnn.report", description=__doc__)
