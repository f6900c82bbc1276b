"""A unit's part of the report: its images, verdict, maps, plots, and what it cost."""

import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import xarray as xr

from ppl_cnn.errors import InputError
from ppl_cnn.files import write_aside
from ppl_cnn.inference.diagnostics.mixing import Mixing, mixing_html
from ppl_cnn.inference.diagnostics.pixel_maps import stored_maps
from ppl_cnn.inference.diagnostics.replicas import Climbs, climbs_html
from ppl_cnn.inference.diagnostics.scan import Scan, read, scan, variable
from ppl_cnn.inference.diagnostics.stein import SteinMeans, stein_check, stein_means
from ppl_cnn.inference.diagnostics.summary import Extreme, largest_rhat, scalars, summary
from ppl_cnn.inference.diagnostics.two_sides import sides_html, two_sides
from ppl_cnn.inference.diagnostics.verdict import (
    BFMI_GOOD,
    ESS_GOOD,
    RHAT_GOOD,
    Findings,
    Verdict,
    verdict,
)
from ppl_cnn.inference.report.heatmaps import maps_html
from ppl_cnn.inference.report.pictures import Album, Stretched
from ppl_cnn.inference.report.plots import plots_html, summary_html
from ppl_cnn.inference.report.viewer import FRAMES, Sheets, modes, viewer_html
from ppl_cnn.inference.runs.record import is_two_sided, read_record, unit_folder

HEADLINES = {
    "good": "Good",
    "short": "Not yet enough",
    "bad": "Not to be relied on",
    "missing": "Nothing to show",
}
SIGNS = {"good": "✓", "short": "△", "bad": "✕", "missing": "–"}
"""A verdict must be told from another without its colour."""


class Section(NamedTuple):
    """What the page says of a unit."""

    unit: str
    folder: Path
    record: Mapping[str, Any]
    quantities: xr.DataTree
    table: pd.DataFrame
    verdict: Verdict
    thumbnail: Stretched
    images: str
    """HTML: the large pictures and the viewer."""
    mixing: str
    """HTML: mixing within and across starts; the two sides and the replicas, if there are any."""
    maps: str
    facts: str

    @classmethod
    def of(
        cls, folder: Path, limit: int, unit: str | None = None, heading: str = "h2"
    ) -> "Section":
        """Diagnoses a run of one unit, and writes `summary.csv`, `maps.npz` and `images/`.

        Args:
            folder: the run's.
            limit: bytes that its pictures may take in the page.
            unit: the text by which it is known there; otherwise the record's.
            heading: the tag of its parts' headings.

        Raises:
            InputError: the folder holds no run of `ppl_cnn.sample`, fewer than 4 draws, or a
                damaged store.
        """
        record = read_record(folder)
        if record["config"].get("kind") != "sampling":
            raise InputError(f"{folder} holds no run of `python -m ppl_cnn.sample`, but another.")
        tree = read(folder)
        images = scan(tree, FRAMES)
        quantities = scalars(tree, images)
        table = summary(quantities)
        steins = stein_means(tree, images.shown_draws)
        check = None
        if steins is not None:
            check = stein_check(images.mean, steins.running[:, -1])
        order = record.get("preprocessing", {}).get("order", "")
        album = Album.of(images, steins, order)
        album.write(folder / "images")
        write_aside(folder / "summary.csv", table.to_csv(index_label="quantity").encode())
        maps = maps_html(stored_maps(folder, tree), heading)
        large = album.html(check)
        sheets = Sheets.fitting(
            modes(images, steins, order), order, limit - len(large.encode()) - len(maps.encode())
        )
        unit = record["config"].get("unit", "") if unit is None else unit
        mixing, findings = _mixing(record["config"], tree, quantities, images, table, heading)
        chains, draws = (
            quantities["posterior"].sizes["chain"],
            quantities["posterior"].sizes["draw"],
        )
        return cls(
            unit=unit,
            folder=folder,
            record=record,
            quantities=quantities,
            table=table,
            verdict=verdict(quantities, table, record["config"], findings),
            thumbnail=album.best(),
            images=large
            + f"<{heading}>Chain by chain</{heading}>\n"
            + viewer_html(sheets, unit_folder(unit), chains, draws, _no_stein(record, steins)),
            mixing=mixing,
            maps=maps,
            facts=_facts(record, tree, quantities, table),
        )

    @property
    def title(self) -> str:
        """The unit, and its name if it is a class."""
        name = self.record.get("classes", {}).get(self.record["config"].get("unit"))
        return f"{self.unit} ({name})" if name else self.unit

    @property
    def subtitle(self) -> str:
        """Its draws, and how they were made."""
        chains, draws = (self.quantities["posterior"].sizes[dim] for dim in ("chain", "draw"))
        part = f"{chains} chains × {draws:,} draws" if chains > 1 else f"1 chain of {draws:,} draws"
        if draws < self.record.get("draws", 0):
            part += f" of {self.record['draws']:,} (stopped; the same command goes on)"
        return " · ".join([part, *settings(self.record["config"])])

    def verdict_html(self, heading: str) -> str:
        """The verdict, with the numbers it rests on."""
        state = self.verdict.state
        return f"""<section class="verdict {state}">
<{heading}><span aria-hidden="true">{SIGNS[state]}</span> {HEADLINES[state]}</{heading}>
<p>{escape(self.verdict.sentence)}</p>
<p class="note">{escape(density(self.record["config"]))}</p>
<dl class="numbers">
{_numbers(self.verdict, self.quantities)}
</dl>
</section>
"""

    def plots(self) -> str:
        """ArviZ's plots."""
        return plots_html(self.quantities, self.table)

    def summary(self) -> str:
        """ArviZ's summary."""
        return summary_html(self.table)


def density(config: Mapping[str, Any]) -> str:
    """Which density was sampled, in a sentence; as far as it is known."""
    unknown = {"target": "response", "unit": "a unit", "reference": "?"}
    known = {**unknown, **config}
    temperature = _as_fraction(config["temperature"]) if "temperature" in config else "?"
    parts = [f"f the {known['target']} of {known['unit']}", *_views(config)]
    return (
        f"Sampled was the density proportional to exp(f/T) q, {', '.join(parts)}, "
        f"T = {temperature}, q = {known['reference']}."
    )


def settings(config: Mapping[str, Any]) -> list[str]:
    """The kernel and the density's settings, as far as they are known."""
    parts = [f"{config['kernel']} kernel"] if "kernel" in config else []
    if config.get("target", "logit") != "logit":
        parts.append(f"target {config['target']}")
    parts += _views(config)
    if "reference" in config:
        parts.append(f"reference {config['reference']}")
    if "temperature" in config:
        parts.append(f"T = {_as_fraction(config['temperature'])}")
    return parts


def _views(config: Mapping[str, Any]) -> list[str]:
    """How the network saw the images, where that was not as they are."""
    parts = []
    if "warps" in config:
        smooth = f" with noise {config['smooth']:g}" if config.get("smooth") else ""
        parts.append(f"mean over {config['warps']} warps{smooth}")
    if "size" in config:
        parts.append(f"at {config['size']}x{config['size']}")
    return parts


def _as_fraction(temperature: float) -> str:
    """1/1000 for 0.001, where it is one by a whole number."""
    inverse = 1 / temperature
    if inverse > 1.5 and math.isclose(inverse, round(inverse), rel_tol=1e-9):
        return f"1/{round(inverse)}"
    return f"{temperature:g}"


def _no_stein(record: Mapping[str, Any], steins: SteinMeans | None) -> str:
    if steins is not None:
        return ""
    reference = record["config"].get("reference", "")
    return f"The reference {reference}".rstrip() + " has no Stein mean."


def _mixing(
    config: Mapping[str, Any],
    tree: xr.DataTree,
    quantities: xr.DataTree,
    scan: Scan,
    table: pd.DataFrame,
    heading: str,
) -> tuple[str, Findings]:
    """The page's sections on it, and what they mean for the verdict."""
    start = config.get("init", "")
    sides = two_sides(quantities, scan) if is_two_sided(start) else None
    found = Mixing.of(tree, quantities, largest_rhat(table), sides)
    pages, findings = mixing_html(found, heading), found.findings()
    if sides is not None:
        pages += sides_html(sides, heading, start)
    climbs = Climbs.of(tree)
    if climbs is not None:
        pages += climbs_html(climbs, heading)
        findings = findings.and_those(climbs.findings())
    return pages, findings


# The verdict's numbers


def _numbers(verdict: Verdict, quantities: xr.DataTree) -> str:
    acceptance = float(quantities["sample_stats/acceptance_rate"].mean())
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
            _number("Acceptance", f"{acceptance:.2f}", "mean"),
        )
    )


def _worst(label: str, worst: Extreme, form: str, bound: str, threshold: float) -> str:
    value, of = worst
    if math.isnan(value):
        return _number(label, "–", f"not defined here; {bound} {threshold}")
    missed = value > threshold if bound == "at most" else value < threshold
    return _number(label, f"{value:{form}}", f"{of}; {bound} {threshold} is good", missed)


def _number(label: str, value: str, note: str, missed: bool = False) -> str:
    kind = "value missed" if missed else "value"
    return (
        f'<div><dt>{label}</dt><dd><span class="{kind}">{value}</span>'
        f"<small>{escape(note)}</small></dd></div>"
    )


# The run


def _facts(
    record: Mapping[str, Any], tree: xr.DataTree, quantities: xr.DataTree, table: pd.DataFrame
) -> str:
    groups = (
        ("Configuration", _configuration(record, tree)),
        ("Time and cost", _cost(record, quantities, table)),
        ("Versions", record.get("versions", {})),
    )
    columns = "\n".join(
        f'<table class="data"><caption>{title}</caption><tbody>\n{_rows(facts)}\n</tbody></table>'
        for title, facts in groups
        if facts
    )
    return f'<div class="columns">\n{columns}\n</div>\n{command_html(record)}'


def _rows(facts: Mapping[str, Any]) -> str:
    return "\n".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )


def _configuration(record: Mapping[str, Any], tree: xr.DataTree) -> dict[str, Any]:
    facts = {name.replace("_", " "): value for name, value in record["config"].items()}
    if "recipe" in record:
        facts["recipe"] = record["recipe"]["name"]
    image = variable(tree, "posterior/image")
    for dim, name in (("row", "image rows"), ("col", "image columns")):
        facts[name] = f"{image[dim].values[0]} to {image[dim].values[-1]}"
    for name, value in record.get("preprocessing", {}).items():
        facts[f"preprocessing {name}"] = value
    return facts


def _cost(
    record: Mapping[str, Any], quantities: xr.DataTree, table: pd.DataFrame
) -> dict[str, str]:
    sizes, stats = quantities["posterior"].sizes, quantities["sample_stats"]
    draws = sizes["chain"] * sizes["draw"]
    ess = float(table.loc["response", "ess_bulk"])
    facts = {
        f"seconds, {name}": f"{value:,.1f}" for name, value in record.get("seconds", {}).items()
    }
    facts |= {
        f"gradients, {name}": f"{value:,}" for name, value in record.get("gradients", {}).items()
    }
    seconds = record.get("seconds", {}).get("sampling", 0)
    gradients = record.get("gradients", {}).get("sampling", 0)
    if seconds:
        facts["draws per second"] = f"{draws / seconds:,.1f}"
    if gradients and seconds:
        facts["gradients per second"] = f"{gradients / seconds:,.0f}"
    if ess > 0:
        facts["effective draws of the response (bulk)"] = f"{ess:,.0f} of {draws:,}"
    if gradients and ess > 0:
        facts["gradients per effective draw"] = f"{gradients / ess:,.1f}"
    for name in ("n_steps", "step_size", "tree_depth"):
        if name in stats:
            facts[f"{name.replace('_', ' ')}, mean"] = f"{float(stats[name].mean()):.3g}"
    return facts


def command_html(record: Mapping[str, Any]) -> str:
    """How the run was started."""
    if "command" not in record:
        return ""
    return f'<pre tabindex="0" aria-label="Command">{escape(str(record["command"]))}</pre>'
