"""The report of a sampling run: one page that stands by itself, with the images first."""

import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import xarray as xr

from ppl_cnn import InputError
from ppl_cnn.inference import diagnostics
from ppl_cnn.inference.pictures import Album
from ppl_cnn.inference.plots import plots_html
from ppl_cnn.inference.records import read_record
from ppl_cnn.models.weights import write_aside


def build_report(folder: Path) -> Path:
    """Builds the report of a run from its stored draws.

    Writes `report.html`, one file without outside addresses; `summary.csv`, ArviZ's summary of
    the scalars; and in `images/` the PNG files `draws` (a row per chain), `means`, `steins` (one
    of each chain), `mean` and `stein` (over all chains). Each is written aside and renamed.

    Args:
        folder: a run of `ppl_cnn.sample`, finished or not.

    Returns:
        The page's path.

    Raises:
        InputError: the folder holds no run of `ppl_cnn.sample`, fewer than 4 draws, or a
            damaged store.
    """
    record = read_record(folder)
    if record["config"].get("kind") != "sampling":
        raise InputError(f"{folder} holds no run of `python -m ppl_cnn.sample`, but another.")
    tree = diagnostics.read(folder)
    scan = diagnostics.scan(tree)
    quantities = diagnostics.scalars(tree, scan)
    table = diagnostics.summary(quantities)
    verdict = diagnostics.verdict(quantities, table, record["config"])
    stein = diagnostics.stein_mean(tree)
    album = Album.of(scan, stein, record)
    album.write(folder / "images")
    write_aside(folder / "summary.csv", table.to_csv(index_label="quantity").encode())
    page = Template(Path(__file__).with_name("page.html").read_text()).substitute(
        title=escape(_title(record)),
        subtitle=escape(_subtitle(record, quantities)),
        images=album.html(diagnostics.stein_check(scan.mean, stein)),
        state=verdict.state,
        headline=_HEADLINES[verdict.state],
        sentence=escape(verdict.sentence),
        numbers=_numbers(verdict, quantities),
        plots=plots_html(quantities, table),
        facts=_facts(record, tree, quantities, table),
        command=_command(record),
    )
    write_aside(folder / "report.html", page.encode())
    return folder / "report.html"


def _title(record: Mapping[str, Any]) -> str:
    unit, model = (record["config"].get(name, "") for name in ("unit", "model"))
    return f"{unit} of {model}" if model else unit


def _subtitle(record: Mapping[str, Any], quantities: xr.DataTree) -> str:
    config = record["config"]
    chains, draws = quantities["posterior"].sizes["chain"], quantities["posterior"].sizes["draw"]
    parts = [f"{chains} chains × {draws:,} draws" if chains > 1 else f"1 chain of {draws:,} draws"]
    if draws < record.get("draws", 0):
        parts[0] += f" of {record['draws']:,} (stopped; the same command goes on)"
    if "kernel" in config:
        parts.append(str(config["kernel"]).upper())
    if "reference" in config:
        parts.append(f"reference {config['reference']}")
    if "temperature" in config:
        parts.append(f"temperature {config['temperature']:g}")
    return " · ".join(parts)


# The verdict's numbers

_HEADLINES = {
    "good": "Good",
    "short": "Not yet enough",
    "bad": "Not to be relied on",
}


def _numbers(verdict: diagnostics.Verdict, quantities: xr.DataTree) -> str:
    good = diagnostics
    acceptance = float(quantities["sample_stats/acceptance_rate"].mean())
    return "\n".join(
        (
            _worst("Largest R-hat", verdict.rhat, ".3f", "at most", good.RHAT_GOOD),
            _worst("Smallest bulk ESS", verdict.ess_bulk, ",.0f", "at least", good.ESS_GOOD),
            _worst("Smallest tail ESS", verdict.ess_tail, ",.0f", "at least", good.ESS_GOOD),
            _worst("Smallest E-BFMI", verdict.bfmi, ".2f", "at least", good.BFMI_GOOD),
            _number(
                "Divergences",
                f"{verdict.divergences:,}",
                f"of {verdict.draws:,} draws",
                verdict.divergences > 0,
            ),
            _number("Acceptance", f"{acceptance:.2f}", "mean"),
        )
    )


def _worst(label: str, worst: diagnostics.Extreme, form: str, bound: str, threshold: float) -> str:
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
    return "\n".join(
        f'<div><h3>{title}</h3><table class="data"><tbody>\n{_rows(facts)}\n</tbody></table></div>'
        for title, facts in groups
        if facts
    )


def _rows(facts: Mapping[str, Any]) -> str:
    return "\n".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )


def _configuration(record: Mapping[str, Any], tree: xr.DataTree) -> dict[str, Any]:
    facts = {name.replace("_", " "): value for name, value in record["config"].items()}
    image = diagnostics.variable(tree, "posterior/image")
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


def _command(record: Mapping[str, Any]) -> str:
    if "command" not in record:
        return ""
    return f'<h3>Command</h3>\n<pre tabindex="0">{escape(str(record["command"]))}</pre>'
