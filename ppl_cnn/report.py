"""Builds the report of a run again from its stored draws, or puts two runs side by side.

Examples:
    python -m ppl_cnn.report runs/trouser
    python -m ppl_cnn.report runs/trouser-split --against runs/trouser-resample
    python -m ppl_cnn.report runs/trouser runs/trouser-robust
    python -m ppl_cnn.report runs/trouser --exemplars fashion-embedded@test
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ppl_cnn.errors import ArgumentError
from ppl_cnn.options.command import run_command


@dataclass(frozen=True)
class ReportOptions:
    """Options of the report."""

    folder: tyro.conf.Positional[Path]
    """A run of `python -m ppl_cnn.sample`, finished or not; in a run of several units, also the
    folder of one unit."""
    other: tyro.conf.Positional[Path | None] = None
    """Another run, of any network and settings: a page of both side by side, with the settings that
    differ and, for each unit that both have, draws, figures and verdicts. It is written into the
    first run's folder, beside-OTHER.html."""
    against: Path | None = None
    """Another run of the same units and density, by another kernel or seed. The page then tells how
    far both agree: mean and standard deviation of the response, log Z where it is known, and
    projections of the image, in standard errors."""
    exemplars: str | None = None
    """A folder of photographs, or a data set as NAME[@SPLIT] or folder:PATH. The page shows the
    nine images to which each unit responds most, cropped to its receptive field. They are kept in
    the run's folder, so that later reports show them without this option."""
    save: Literal["gif", "mp4"] | None = None
    """Also write an animation of the chains' draws, images/draws.gif or draws.mp4 in each unit's
    folder. mp4 needs the program ffmpeg."""

    def check_alone(self) -> None:
        """Refuses options of one run's report beside a second run.

        Raises:
            ArgumentError: one is given.
        """
        for name in ("against", "exemplars", "save"):
            if getattr(self, name) is not None:
                raise ArgumentError(
                    f"`{name}` is for the report of one run. Leave it out, or the second folder.",
                    argument=name,
                )


def main(options: ReportOptions) -> None:
    """Builds the page and prints its path, and makes before what the options ask for."""
    from ppl_cnn.inference.report.animated import animate
    from ppl_cnn.inference.report.beside import side_by_side
    from ppl_cnn.inference.report.page import report

    if options.other is not None:
        options.check_alone()
        print(side_by_side(options.folder, options.other))
        return
    if options.exemplars is not None:
        _find_exemplars(options.folder, options.exemplars)
    if options.save is not None:
        animate(options.folder, options.save)
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
