"""A unit's part of the page: its images, verdict, tables, maps, plots and cost."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import UInt8

from ppl_cnn.errors import FileError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.diagnostics.comparison import Comparison
from ppl_cnn.inference.diagnostics.diagnose import Diagnosis, diagnose
from ppl_cnn.inference.diagnostics.pixel_maps import stored_maps
from ppl_cnn.inference.diagnostics.verdict.verdict import Verdict
from ppl_cnn.inference.report.frame.frame import folding_html
from ppl_cnn.inference.report.parts.comparison import comparison_html
from ppl_cnn.inference.report.parts.exemplars import exemplars_html, sheet
from ppl_cnn.inference.report.parts.facts import advice_html, facts_html, settings
from ppl_cnn.inference.report.parts.heatmaps import maps_html
from ppl_cnn.inference.report.parts.plots import plots_html
from ppl_cnn.inference.report.parts.published import published_html
from ppl_cnn.inference.report.parts.step_bias import step_bias_html
from ppl_cnn.inference.report.parts.tables import climbs_html, mixing_html, sides_html, summary_html
from ppl_cnn.inference.report.parts.tilting import tilting_html
from ppl_cnn.inference.report.parts.verdict import verdict_html
from ppl_cnn.inference.report.parts.weighing import weighing_html
from ppl_cnn.inference.report.pictures.album import Album, Tones
from ppl_cnn.inference.report.pictures.viewer import Sheets, modes, viewer_html
from ppl_cnn.inference.runs.exemplars import Exemplars
from ppl_cnn.inference.runs.record import published_run, second_side, unit_folder


class Section(NamedTuple):
    """What the page shows of a unit. Texts are plain, except where they are HTML."""

    unit: str
    title: str
    """The unit, and its name if it is a class."""
    subtitle: str
    """How many draws there are, and how they were made."""
    verdict: Verdict
    name: str
    """The class's name; empty if the unit is no class, or one without a name."""
    thumbnail: UInt8[np.ndarray, "height width channel"]
    natural: UInt8[np.ndarray, "height width channel"] | None
    """A sheet of exemplars; None without any."""
    row: UInt8[np.ndarray, "draw row col channel"] | None
    """Ten draws, if they are pictures."""
    images: str
    """HTML: the large pictures, exemplars if there are any, and the viewer."""
    judgement: str
    """HTML: the verdict with its numbers."""
    tilting: str
    """HTML: draws of the reference beside draws of the density; empty if none are known."""
    mixing: str
    """HTML: mixing within and across starts, the step's bias, two sides and replicas, if there are
    any; or the weights of resampled draws."""
    comparison: str
    """HTML: another run of the same density; empty without any."""
    maps: str
    """HTML: R-hat and ESS of every pixel."""
    summary: str
    """HTML: the summary of all quantities."""
    facts: str
    """HTML: configuration, cost, versions, command."""
    published: str
    """HTML: the same unit under the published setting; empty if it wasn't sampled."""
    folder: Path | None
    quantities: xr.DataTree
    table: pd.DataFrame

    @classmethod
    def of(
        cls,
        diagnosis: Diagnosis,
        album: Album,
        *,
        limit: int,
        unit: str | None = None,
        heading: str = "h2",
        against: Diagnosis | None = None,
        published: str = "",
        exemplars: Exemplars | None = None,
    ) -> "Section":
        """Renders a diagnosis, except for its plots, which take long.

        Args:
            diagnosis: the run's.
            album: its pictures.
            limit: how many bytes its pictures may take in the page.
            unit: what the page calls the unit; by default as the record does.
            heading: the tag of the headings of its parts.
            against: another run's, of the same density.
            published: HTML, as the field.
            exemplars: the images of a set to which the unit responds most, if they are known.

        Raises:
            MismatchError: the other run is of another density.
        """
        record, config = diagnosis.record, diagnosis.config
        unit = config.get("unit", "") if unit is None else unit
        name = record.get("classes", {}).get(config.get("unit"), "")
        maps = "" if diagnosis.maps is None else maps_html(diagnosis.maps, heading)
        large = album.html(diagnosis.stein_check)
        if exemplars is not None:
            large += exemplars_html(exemplars, diagnosis)
        tones, mixing = Tones.of(diagnosis), _mixing(diagnosis, heading)
        tilting = tilting_html(diagnosis, heading)
        compared = None if against is None else Comparison.of(diagnosis, against)
        sheets = Sheets.fitting(
            modes(diagnosis.images, diagnosis.steins, tones),
            tones,
            limit - sum(len(part.encode()) for part in (large, maps, mixing, tilting)),
        )
        viewer = viewer_html(
            sheets,
            ident=unit_folder(unit),
            chains=diagnosis.chains,
            draws=diagnosis.draws,
            no_stein=_no_stein(diagnosis),
        )
        return cls(
            unit=unit,
            title=f"{unit} ({name})" if name else unit,
            subtitle=" · ".join([_draws(diagnosis), *settings(config)]),
            verdict=diagnosis.verdict,
            name=name,
            thumbnail=album.best(),
            natural=None if exemplars is None else sheet(exemplars),
            row=None if album.sheet is None else album.row(),
            images=f"{large}<{heading}>{_one_by_one(diagnosis)}</{heading}>\n{viewer}",
            judgement=verdict_html(diagnosis, heading),
            tilting=tilting,
            mixing=mixing,
            comparison="" if compared is None else comparison_html(compared, heading),
            maps=maps,
            summary=summary_html(diagnosis.summary),
            facts=facts_html(diagnosis),
            published=published,
            folder=diagnosis.folder,
            quantities=diagnosis.quantities,
            table=diagnosis.summary,
        )

    def plots(self, heading: str, *, opened: bool = False) -> str:
        """ArviZ's plots, as HTML; empty for resampled draws, whose order tells nothing.

        Args:
            heading: the tag of their heading.
            opened: whether they are open at first.
        """
        if self.verdict.weights is not None:
            return ""
        plots = plots_html(self.quantities, self.table, self.verdict.state)
        return folding_html(heading, "ArviZ's plots", plots, opened=opened)


def section_of(
    folder: Path,
    *,
    limit: int,
    unit: str | None = None,
    heading: str = "h2",
    against: Path | None = None,
) -> Section:
    """Diagnoses a run of one unit, renders it, and writes the files beside the page.

    These are `summary.csv`, `maps.npz` and `images/`.

    Args:
        folder: the run's.
        limit: how many bytes its pictures may take in the page.
        unit: what the page calls the unit; by default as the record does.
        heading: the tag of the headings of its parts.
        against: the folder of another run of the same density, to compare with.

    Raises:
        RunFolderError: a folder holds a run of another kind.
        FileError: a folder holds no run, or a damaged one.
        ArgumentError: there are fewer than 4 draws per chain.
        MismatchError: the other run is of another density.
    """
    other = None if against is None else diagnose(against, maps=False)
    diagnosis = diagnose(folder)
    if other is not None:
        Comparison.of(diagnosis, other)  # a mismatch is said before anything is written
    album = Album.of(diagnosis)
    album.write(folder / "images")
    write_aside(folder / "summary.csv", diagnosis.summary.to_csv(index_label="quantity").encode())
    shape = (diagnosis.chains, diagnosis.draws, *diagnosis.images.shown.shape[2:])
    if diagnosis.maps is not None and stored_maps(folder, shape) is None:
        write_aside(folder / "maps.npz", diagnosis.maps.saved(shape))
    return Section.of(
        diagnosis,
        album,
        limit=limit,
        unit=unit,
        heading=heading,
        against=other,
        published=published_html(published_run(folder, diagnosis.config), heading),
        exemplars=Exemplars.read(folder),
    )


def unit_section(
    folder: Path, unit: str, *, limit: int, heading: str, against: Path | None = None
) -> Section:
    """The section of one unit of a run of several; see `section_of`.

    Args:
        folder: the unit's.
        unit: as the run's record has it.
        limit: how many bytes its pictures may take in the page.
        heading: the tag of the headings of its parts.
        against: the unit's folder in another run, to compare with.

    Raises:
        FileError: the unit has not been sampled yet, or its folder is damaged.
        ArgumentError: there are fewer than 4 draws per chain.
        MismatchError: the other run is of another density.
    """
    if not (folder / "run.json").exists():
        raise FileError(
            "This unit has not been sampled yet. Rerun the same command to resume.", path=folder
        )
    return section_of(folder, limit=limit, unit=unit, heading=heading, against=against)


def _draws(diagnosis: Diagnosis) -> str:
    chains, draws = diagnosis.chains, diagnosis.draws
    part = f"{chains} chains × {draws:,} draws" if chains > 1 else f"1 chain of {draws:,} draws"
    if diagnosis.weighing is not None:
        part = f"{chains} × {draws:,} independent draws"
    wanted = diagnosis.record.get("draws", 0)
    if draws < wanted:
        part += f" of {wanted:,} (stopped; rerun the same command to resume)"
    return part


def _one_by_one(diagnosis: Diagnosis) -> str:
    return "Chain by chain" if diagnosis.weighing is None else "Draw by draw"


def _no_stein(diagnosis: Diagnosis) -> str:
    if diagnosis.steins is not None:
        return ""
    if diagnosis.weighing is not None:
        return "Resampled draws have no Stein mean, which takes gradients."
    return f"The reference {diagnosis.config.get('reference', '')}".rstrip() + " has no Stein mean."


def _mixing(diagnosis: Diagnosis, heading: str) -> str:
    if diagnosis.weighing is not None:
        return weighing_html(
            diagnosis.weighing,
            Tones.of(diagnosis),
            images="images" in diagnosis.config,
            heading=heading,
        )
    if diagnosis.mixing is None:
        return ""
    parts = mixing_html(diagnosis.mixing, diagnosis.sides, heading)
    if diagnosis.step_bias is not None:
        parts = step_bias_html(diagnosis.step_bias, heading) + parts
    if diagnosis.sides is not None:
        other = second_side(diagnosis.config) or ""
        parts += sides_html(diagnosis.sides, heading, other)
    if diagnosis.climbs is not None:
        sentences = " ".join(each.sentence for each in diagnosis.climbs.findings())
        parts += climbs_html(diagnosis.climbs, advice_html(sentences, diagnosis.record), heading)
    return parts
