"""A unit's part of the page: its images, verdict, tables, maps, plots and cost."""

import math
from html import escape
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import xarray as xr

from ppl_cnn.files import write_aside
from ppl_cnn.inference.diagnostics.diagnose import Diagnosis, diagnose
from ppl_cnn.inference.diagnostics.pixel_maps import stored_maps
from ppl_cnn.inference.diagnostics.summary import Extreme
from ppl_cnn.inference.diagnostics.thresholds import BFMI_GOOD, ESS_GOOD, RHAT_GOOD
from ppl_cnn.inference.diagnostics.verdict import HEADLINES, Verdict
from ppl_cnn.inference.report.facts import advice_html, density_text, facts_html, settings
from ppl_cnn.inference.report.heatmaps import maps_html
from ppl_cnn.inference.report.pictures import Album, Stretched
from ppl_cnn.inference.report.plots import plots_html
from ppl_cnn.inference.report.tables import climbs_html, mixing_html, sides_html, summary_html
from ppl_cnn.inference.report.viewer import Sheets, modes, viewer_html
from ppl_cnn.inference.runs.record import second_side, unit_folder

LABELS: dict[str, str] = {str(state): said for state, said in HEADLINES.items()}
LABELS["missing"] = "Nothing to show"
"""State of a unit -> what it means in a few words."""
SIGNS = {"good": "✓", "short": "△", "bad": "✕", "missing": "–"}
"""State of a unit -> its sign, which tells it apart without colours."""


class Section(NamedTuple):
    """What the page shows of a unit. Texts are plain, except where they are HTML."""

    unit: str
    title: str
    """The unit, and its name if it is a class."""
    subtitle: str
    """How many draws there are, and how they were made."""
    verdict: Verdict
    thumbnail: Stretched
    images: str
    """HTML: the large pictures and the viewer."""
    judgement: str
    """HTML: the verdict with its numbers."""
    mixing: str
    """HTML: mixing within and across starts; two sides and replicas, if there are any."""
    maps: str
    """HTML: R-hat and ESS of every pixel."""
    summary: str
    """HTML: the summary of all quantities."""
    facts: str
    """HTML: configuration, cost, versions, command."""
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
    ) -> "Section":
        """Renders a diagnosis, except for its plots, which take long.

        Args:
            diagnosis: the run's.
            album: its pictures.
            limit: how many bytes its pictures may take in the page.
            unit: what the page calls the unit; by default as the record does.
            heading: the tag of the headings of its parts.
        """
        record, config = diagnosis.record, diagnosis.config
        unit = config.get("unit", "") if unit is None else unit
        name = record.get("classes", {}).get(config.get("unit"))
        maps = "" if diagnosis.maps is None else maps_html(diagnosis.maps, heading)
        large = album.html(diagnosis.stein_check)
        order = _order(diagnosis)
        sheets = Sheets.fitting(
            modes(diagnosis.images, diagnosis.steins, order),
            order,
            limit - len(large.encode()) - len(maps.encode()),
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
            thumbnail=album.best(),
            images=f"{large}<{heading}>Chain by chain</{heading}>\n{viewer}",
            judgement=_judgement(diagnosis, heading),
            mixing=_mixing(diagnosis, heading),
            maps=maps,
            summary=summary_html(diagnosis.summary),
            facts=facts_html(diagnosis),
            folder=diagnosis.folder,
            quantities=diagnosis.quantities,
            table=diagnosis.summary,
        )

    def plots(self) -> str:
        """ArviZ's plots, as HTML."""
        return plots_html(self.quantities, self.table)


def album_of(diagnosis: Diagnosis) -> Album:
    """The pictures of a run.

    Args:
        diagnosis: the run's.
    """
    return Album.of(diagnosis, _order(diagnosis))


def section_of(
    folder: Path, *, limit: int, unit: str | None = None, heading: str = "h2"
) -> Section:
    """Diagnoses a run of one unit, renders it, and writes the files beside the page.

    These are `summary.csv`, `maps.npz` and `images/`.

    Args:
        folder: the run's.
        limit: how many bytes its pictures may take in the page.
        unit: what the page calls the unit; by default as the record does.
        heading: the tag of the headings of its parts.

    Raises:
        RunFolderError: the folder holds a run of another kind.
        FileError: the folder holds no run, or a damaged one.
        ArgumentError: there are fewer than 4 draws per chain.
    """
    diagnosis = diagnose(folder)
    album = album_of(diagnosis)
    album.write(folder / "images")
    write_aside(folder / "summary.csv", diagnosis.summary.to_csv(index_label="quantity").encode())
    shape = (diagnosis.chains, diagnosis.draws, *diagnosis.images.shown.shape[2:])
    if diagnosis.maps is not None and stored_maps(folder, shape) is None:
        write_aside(folder / "maps.npz", diagnosis.maps.saved(shape))
    return Section.of(diagnosis, album, limit=limit, unit=unit, heading=heading)


def _order(diagnosis: Diagnosis) -> str:
    return str(diagnosis.record.get("preprocessing", {}).get("order", ""))


def _draws(diagnosis: Diagnosis) -> str:
    chains, draws = diagnosis.chains, diagnosis.draws
    part = f"{chains} chains × {draws:,} draws" if chains > 1 else f"1 chain of {draws:,} draws"
    wanted = diagnosis.record.get("draws", 0)
    if draws < wanted:
        part += f" of {wanted:,} (stopped; rerun the same command to resume)"
    return part


def _no_stein(diagnosis: Diagnosis) -> str:
    if diagnosis.steins is not None:
        return ""
    return f"The reference {diagnosis.config.get('reference', '')}".rstrip() + " has no Stein mean."


def _mixing(diagnosis: Diagnosis, heading: str) -> str:
    parts = mixing_html(diagnosis.mixing, diagnosis.sides, heading)
    if diagnosis.sides is not None:
        other = second_side(diagnosis.config) or ""
        parts += sides_html(diagnosis.sides, heading, other)
    if diagnosis.climbs is not None:
        sentences = " ".join(each.sentence for each in diagnosis.climbs.findings())
        parts += climbs_html(diagnosis.climbs, advice_html(sentences, diagnosis.record), heading)
    return parts


# The verdict and its numbers


def _judgement(diagnosis: Diagnosis, heading: str) -> str:
    verdict = diagnosis.verdict
    sign = f'<span aria-hidden="true">{SIGNS[verdict.state]}</span>'
    return f"""<section class="verdict {verdict.state}">
<{heading}>{sign} {escape(verdict.headline)}</{heading}>
<p>{advice_html(verdict.sentence, diagnosis.record)}</p>
<p class="note">{escape(density_text(diagnosis.config))}</p>
<dl class="numbers">
{_numbers(verdict)}
</dl>
</section>
"""


def _numbers(verdict: Verdict) -> str:
    return "\n".join(
        (
            _worst("Largest R-hat", verdict.rhat, ".3f", "at most", RHAT_GOOD),
            _worst("Smallest bulk ESS", verdict.ess_bulk, ",.0f", "at least", ESS_GOOD),
            _worst("Smallest tail ESS", verdict.ess_tail, ",.0f", "at least", ESS_GOOD),
            _worst("Smallest E-BFMI", verdict.bfmi, ".2f", "at least", BFMI_GOOD),
            _number(
                "Divergences",
                f"{verdict.divergences:,}",
                f"of {verdict.draws:,} draws",
                verdict.divergences > 0,
            ),
            _number("Acceptance", f"{verdict.acceptance:.2f}", "mean"),
        )
    )


def _worst(label: str, worst: Extreme, form: str, bound: str, threshold: float) -> str:
    value, of = worst
    if math.isnan(value):
        return _number(label, "–", f"undefined here; {bound} {threshold} is good")
    missed = value > threshold if bound == "at most" else value < threshold
    return _number(label, f"{value:{form}}", f"{of}; {bound} {threshold} is good", missed)


def _number(label: str, value: str, note: str, missed: bool = False) -> str:
    kind = "value missed" if missed else "value"
    return (
        f'<div><dt>{label}</dt><dd><span class="{kind}">{value}</span>'
        f"<small>{escape(note)}</small></dd></div>"
    )
