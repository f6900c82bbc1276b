"""The report of a sampling run: one page that stands by itself, with the images first."""

from pathlib import Path

from ppl_cnn.files import write_aside
from ppl_cnn.inference.diagnostics.diagnose import Diagnosis
from ppl_cnn.inference.report.atlas import FEWEST, atlas_page
from ppl_cnn.inference.report.pictures.album import Album
from ppl_cnn.inference.report.section import Section, section_of
from ppl_cnn.inference.report.several import several_page
from ppl_cnn.inference.report.single import single_page
from ppl_cnn.inference.runs.record import read_record

_PICTURE_BYTES = 6 * 2**20
"""Bytes of a unit's pictures: with its plots the page stays below 8 MB, which mail still takes."""
_MANY_BYTES = 28 * 2**20
"""Bytes of all units' pictures together: with plots and thumbnails the page stays below 40 MB,
which a phone's browser still opens."""


def report(folder: str | Path, *, against: str | Path | None = None) -> Path:
    """Diagnoses a run and writes its report, `report.html`: one file that loads nothing else.

    Beside the draws of each unit it writes `summary.csv`, ArviZ's summary of the scalars;
    `maps.npz`, R-hat and ESS of every pixel; and in `images/` the PNG files `draws` (a row per
    chain), `means` and `steins` (one image per chain), `mean` and `stein` (over all chains); for
    several classes under a generator or a data set also `classes`, a row per class. Each file is
    written aside and renamed. From 33 units on, as of a whole layer, the page is an atlas, and each
    unit has a `report.html` of its own beside its draws.

    Args:
        folder: a run of `python -m ppl_cnn.sample`, or of `draw` with `out`, finished or not.
            If it has several units, those that can't be shown are listed with the reason.
        against: the folder of another run of the same units, by another method or seed; the page
            then tells how far both agree.

    Returns:
        The page's path.

    Raises:
        RunFolderError: the folder holds a run of another kind.
        FileError: the folder holds no run, or a damaged one.
        ArgumentError: the run's only unit has fewer than 4 draws per chain.
        MismatchError: the other run is of another density.

    Examples:
        >>> import ppl_cnn
        >>> page = ppl_cnn.report("runs/alexnet-fashion-conv5-12-split")  # doctest: +SKIP
    """
    folder = Path(folder)
    record, other = read_record(folder), None if against is None else Path(against)
    if "units" in record["config"]:
        units = max(1, len(record["config"]["units"]))
        if units < FEWEST:
            limit = min(_PICTURE_BYTES, _MANY_BYTES // units)
            page = several_page(folder, record, limit=limit, against=other)
        else:
            page = atlas_page(folder, record, limit=_PICTURE_BYTES // 4, against=other)
    else:
        section = section_of(folder, limit=_PICTURE_BYTES, against=other)
        page = single_page(section, record["config"].get("model", ""))
    # Names of folders need not be UTF-8.
    write_aside(folder / "report.html", page.encode(errors="backslashreplace"))
    return folder / "report.html"


def render(diagnosis: Diagnosis, *, limit: int = _PICTURE_BYTES) -> str:
    """The page of a diagnosis, as HTML that loads nothing else. It writes nothing.

    Args:
        diagnosis: what `ppl_cnn.diagnose` returned.
        limit: how many bytes its pictures may take in the page.
    """
    section = Section.of(diagnosis, Album.of(diagnosis), limit=limit)
    return single_page(section, diagnosis.config.get("model", ""))
