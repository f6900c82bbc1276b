"""The report of a sampling run: one page that stands by itself, with the images first."""

import base64
import io
import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from ppl_cnn import InputError
from ppl_cnn.inference import diagnostics
from ppl_cnn.inference.records import read_record
from ppl_cnn.models.weights import write_aside

_TILE = 112
"""Screen pixels along a small image's longer side."""
_LARGE = 336
_PNG_VALUES = 20_000
"""Larger images go into the page as JPEG, or noise would make it tens of megabytes."""
_COLOURS = ("#0072b2", "#d97706", "#009e73", "#c0478f", "#3a9bd0", "#c83737", "#6a4fc0", "#8a7a00")
"""Of middling luminance, as the dark page shows the plots inverted."""
_STYLE: Any = {
    "axes.edgecolor": "0.35",
    "axes.labelcolor": "0.25",
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": f"cycler('color', {list(_COLOURS)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "legend.frameon": False,
    "lines.linewidth": 0.8,
    "lines.markersize": 3,
    "text.color": "0.15",
    "xtick.color": "0.35",
    "xtick.labelsize": 8,
    "ytick.color": "0.35",
    "ytick.labelsize": 8,
}


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
        plots=_plots(quantities, table),
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


# Pictures


class Stretched(NamedTuple):
    """Images on one contrast scale, mid-grey being the mean of the network's inputs."""

    pixels: UInt8[np.ndarray, "*images row col channel"]
    """Grey or RGB."""
    scale: float
    """What white is above and black below the mean, in grey levels (0..255)."""

    @classmethod
    def of(cls, images: Float[np.ndarray, "*images row col channel"], order: str) -> "Stretched":
        """Stretches images in pixel units minus the mean; some 0.5 % of the values are clipped.

        Args:
            images: with channels in the network's order; other than 1 or 3 are averaged.
            order: `BGR` if that is the network's order.
        """
        if images.shape[-1] not in (1, 3):
            with diagnostics.quiet():
                images = images.mean(axis=-1, keepdims=True)
        finite = np.abs(images[np.isfinite(images)])
        extent = float(np.quantile(finite, 0.995)) if finite.size else 0.0
        scale = _round_up(extent) if extent > 0 else 1.0
        levels = np.clip(np.nan_to_num(images) / scale, -1, 1) * 127.5 + 127.5
        if order == "BGR":
            levels = levels[..., ::-1]
        return cls(levels.round().astype(np.uint8), scale)

    def __str__(self) -> str:
        return f"black to white is ±{self.scale:g} grey levels about the mean"


def _round_up(number: float) -> float:
    """To two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(number)) - 1)
    return float(f"{math.ceil(number / unit) * unit:.2g}")


class Album(NamedTuple):
    """All pictures of a run."""

    draws: Stretched
    """(chain, shown, ...)"""
    means: Stretched
    """(chain, ...)"""
    steins: Stretched
    mean: Stretched
    """(...)"""
    stein: Stretched
    shown: list[int]

    @classmethod
    def of(
        cls,
        scan: diagnostics.Scan,
        stein: Float[np.ndarray, "chain row col channel"],
        record: Mapping[str, Any],
    ) -> "Album":
        """Stretches each group of images for itself, as their amplitudes differ widely."""
        order = record.get("preprocessing", {}).get("order", "")
        with diagnostics.quiet():
            overall = scan.mean.mean(axis=0)
        return cls(
            draws=Stretched.of(scan.shown, order),
            means=Stretched.of(scan.mean, order),
            steins=Stretched.of(stein, order),
            mean=Stretched.of(overall, order),
            stein=Stretched.of(stein.mean(axis=0), order),
            shown=scan.shown_draws.tolist(),
        )

    def write(self, folder: Path) -> None:
        """Writes the PNG files."""
        folder.mkdir(exist_ok=True)
        for name, images in (("draws", self.draws), ("means", self.means), ("steins", self.steins)):
            grid = images.pixels if name == "draws" else images.pixels[None]
            write_aside(folder / f"{name}.png", _png(_sheet(grid), str(images)))
        for name, images in (("mean", self.mean), ("stein", self.stein)):
            content = _png(_enlarge(images.pixels, _LARGE), str(images))
            write_aside(folder / f"{name}.png", content)

    def html(self, check: diagnostics.SteinCheck | None) -> str:
        """The pictures' part of the page."""
        last = self.draws.pixels[0, -1]
        large = (
            (self.stein, "Stein mean", f"(s²/T) E[∇f], all chains; {self.stein}."),
            (self.mean, "Mean", f"E[x], all chains; {self.mean}.{_check(check)}"),
            (Stretched(last, self.draws.scale), "One draw", f"x, chain 0's last; {self.draws}."),
        )
        return f"""<div class="row">
{"".join(_large_figure(*parts) for parts in large)}</div>
<figure>
<div class="scroll" tabindex="0" role="region" aria-label="Images of each chain">
<table class="images">
<thead><tr><td></td><th scope="col">Stein mean</th><th scope="col" class="last">mean</th>
{"".join(f'<th scope="col">draw {draw:,}</th>' for draw in self.shown)}</tr></thead>
<tbody>
{"".join(self._row(chain) for chain in range(len(self.means.pixels)))}</tbody>
</table>
</div>
<figcaption>Each chain's images; mid-grey is the mean of the network's inputs. Stein means:
{self.steins}. Means: {self.means}. Draws: {self.draws}.</figcaption>
</figure>"""

    def _row(self, chain: int) -> str:
        name = f"chain {chain}"
        draws = "".join(
            f"<td>{_img(pixels, f'Draw {draw} of {name}', _TILE)}</td>"
            for pixels, draw in zip(self.draws.pixels[chain], self.shown, strict=True)
        )
        stein = _img(self.steins.pixels[chain], f"Stein mean image of {name}", _TILE)
        mean = _img(self.means.pixels[chain], f"Mean image of {name}", _TILE)
        return (
            f'<tr><th scope="row">{name}</th><td>{stein}</td><td class="last">{mean}</td>'
            f"{draws}</tr>\n"
        )


def _large_figure(image: Stretched, name: str, caption: str) -> str:
    return (
        f"<figure>{_img(image.pixels, name, _LARGE)}"
        f"<figcaption><strong>{name}</strong> {caption}</figcaption></figure>\n"
    )


def _check(check: diagnostics.SteinCheck | None) -> str:
    if check is None:
        return ""
    return (
        f" By Stein's identity it equals the Stein mean: they differ by {check.difference:.2g} "
        f"grey levels (rms), and chance alone would give {check.chance:.2g}."
    )


def _factor(pixels: UInt8[np.ndarray, "row col channel"], side: int) -> int:
    return max(1, round(side / max(pixels.shape[:2])))


def _enlarge(
    pixels: UInt8[np.ndarray, "row col channel"], side: int
) -> UInt8[np.ndarray, "height width channel"]:
    """By a whole factor, so that each pixel stays a square."""
    factor = _factor(pixels, side)
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _sheet(
    grid: UInt8[np.ndarray, "rows columns row col channel"], gap: int = 6
) -> UInt8[np.ndarray, "height width channel"]:
    """Images side by side on white."""
    tiles = [[_enlarge(pixels, _TILE) for pixels in row] for row in grid]
    height, width, channels = tiles[0][0].shape
    sheet = np.full(
        (len(tiles) * (height + gap) - gap, len(tiles[0]) * (width + gap) - gap, channels),
        255,
        np.uint8,
    )
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width] = tile
    return sheet


def _png(pixels: UInt8[np.ndarray, "row col channel"], note: str = "") -> bytes:
    stream, info = io.BytesIO(), PngInfo()
    if note:
        info.add_text("Description", note)
    Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels).save(
        stream, "PNG", pnginfo=info
    )
    return stream.getvalue()


def _img(pixels: UInt8[np.ndarray, "row col channel"], alt: str, side: int) -> str:
    """An image in the page, its pixels shown as squares if they are few."""
    factor = _factor(pixels, side)
    height, width, _ = pixels.shape
    if pixels.size <= _PNG_VALUES:
        kind, content = "png", _png(pixels)
    else:
        stream = io.BytesIO()
        Image.fromarray(pixels.squeeze()).save(stream, "JPEG", quality=90, subsampling=0)
        kind, content = "jpeg", stream.getvalue()
    return (
        f'<img class="pixels" width="{width * factor}" height="{height * factor}" '
        f'alt="{alt}" src="{_data(kind, content)}">'
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


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


# ArviZ's plots


def _plots(quantities: xr.DataTree, table: pd.DataFrame) -> str:
    varying = table.index[table["sd"] > 0]
    every = xr.Dataset(
        {
            name: values
            for name, values in diagnostics.by_label(quantities).items()
            if name in varying
        }
    )
    if not every.data_vars:
        return '<p class="note">No quantity is finite and varies, so there is nothing to plot.</p>'
    import matplotlib

    stats = quantities["sample_stats"].to_dataset()
    shown = xr.DataTree.from_dict(
        {
            "posterior": every[_slowest(list(map(str, every.data_vars)), table)],
            "sample_stats": stats,
        }
    )
    with matplotlib.rc_context(_STYLE), diagnostics.quiet():
        steps = tqdm((_traces, _ranks, _energy, _evolution), "plotting", delay=2, leave=False)
        parts = [step(shown) for step in steps]
        parts.append(_convergence(every))
    return _chain_legend(every.sizes["chain"]) + "".join(parts) + _details(table)


def _slowest(names: list[str], table: pd.DataFrame) -> list[str]:
    """Those to plot one by one: response, lp, energy, and the worst of the others."""
    chosen = [name for name in names if name in ("response", "lp", "energy")]
    for group, count in (("projections", 2), ("pixels", 1)):
        own = table.loc[[name for name in names if name.startswith(group)], "ess_bulk"]
        chosen += own.nsmallest(count).index.tolist()
    return chosen


class Canvas(NamedTuple):
    """Axes for ArviZ to draw on, each on a figure of its own, which the page then flows.

    They are made here, as ArviZ would make its figures through pyplot and its global state.
    """

    axes: dict[str, Any]
    collection: Any
    """An `arviz.PlotCollection`."""

    @classmethod
    def by_variable(cls, data: xr.Dataset, aes: Mapping[str, list[str]]) -> "Canvas":
        """With axes for every variable of `data`."""
        import arviz

        axes = {str(name): _axes() for name in data.data_vars}
        children = {"plot": axes, "row_index": dict.fromkeys(axes, 0), "col_index": _count(axes)}
        viz = xr.DataTree(
            _objects({"figure": next(iter(axes.values())).figure}),
            children={key: xr.DataTree(_objects(values)) for key, values in children.items()},
        )
        return cls(axes, arviz.PlotCollection(data, viz, aes=aes, backend="matplotlib"))

    @classmethod
    def by_column(
        cls, data: xr.Dataset, aes: Mapping[str, list[str]], columns: list[str]
    ) -> "Canvas":
        """With axes for every label of a dimension `column`, whatever the variable."""
        import arviz

        axes = {name: _axes() for name in columns}
        plots = np.empty(len(columns), object)
        plots[:] = list(axes.values())
        places = {
            "plot": ("column", plots),
            "row_index": ("column", [0] * len(columns)),
            "col_index": ("column", list(range(len(columns)))),
        }
        viz = xr.DataTree(
            _objects({"figure": plots[0].figure}).assign(places).assign_coords(column=columns)
        )
        return cls(axes, arviz.PlotCollection(data, viz, aes=aes, backend="matplotlib"))

    def html(self, title: str, caption: str) -> str:
        """The figures, and what they show."""
        images = "".join(
            f'<img class="plot" width="640" height="400" alt="{escape(f"{title}: {name}")}" '
            f'src="{_data("png", _figure_png(axes.figure))}">\n'
            for name, axes in self.axes.items()
        )
        return (
            f'<section>\n<h2>{title}</h2>\n<figure><div class="plots">\n{images}</div>\n'
            f"<figcaption>{caption}</figcaption></figure>\n</section>\n"
        )


def _axes() -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(4, 2.5), layout="constrained").add_subplot()


def _objects(values: Mapping[str, Any]) -> xr.Dataset:
    return xr.Dataset({name: ((), np.array(value, object)) for name, value in values.items()})


def _count(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _figure_png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=160, transparent=True)
    return stream.getvalue()


_BY_CHAIN = {"color": ["chain"], "overlay": ["chain"]}


def _traces(shown: xr.DataTree) -> str:
    import arviz

    canvas = Canvas.by_variable(shown["posterior"].to_dataset(), _BY_CHAIN)
    arviz.plot_trace(shown, plot_collection=canvas.collection)
    return canvas.html(
        "Traces",
        "Chains that have reached their density wander about one common level. Besides response, "
        "lp (the log density) and energy, the projections and the pixel of smallest bulk ESS are "
        "shown, in grey levels. Ticks at the bottom are divergences.",
    )


def _ranks(shown: xr.DataTree) -> str:
    if shown["posterior"].sizes["chain"] == 1:
        return ""
    import arviz

    canvas = Canvas.by_variable(shown["posterior"].to_dataset(), _BY_CHAIN)
    arviz.plot_rank(shown, plot_collection=canvas.collection)
    for axes in canvas.axes.values():
        axes.axhline(0, color="0.6", linewidth=0.6, zorder=0)
    return canvas.html(
        "Ranks",
        "Each chain's ranks among all draws, as the difference of their distribution from the "
        "uniform one: a chain that agrees with the others stays near the middle line. p is that "
        "of all ranks being uniform; where it is small, black points mark the departures.",
    )


def _energy(shown: xr.DataTree) -> str:
    if "energy" not in shown["posterior"].data_vars:
        return ""
    import arviz

    data = xr.Dataset({"Energy": ("energy", [0, 0])}, {"energy": ["marginal", "transition"]})
    canvas = Canvas.by_column(data, {"color": ["energy"]}, ["energy", "bfmi"])
    arviz.plot_energy(
        shown,
        threshold=diagnostics.BFMI_GOOD,
        plot_collection=canvas.collection,
        visuals={"legend": False},
    )
    energy, bfmi = canvas.axes.values()
    energy.legend(energy.lines[:2], ["marginal", "transition"], loc="upper right")
    energy.set_title("energy")
    bfmi.set_title("E-BFMI")
    bfmi.yaxis.get_major_locator().set_params(integer=True)
    return canvas.html(
        "Energy",
        "Transitions much narrower than the marginal distribution mean that the energy is "
        "explored slowly; E-BFMI compares them in each chain and is good from "
        f"{diagnostics.BFMI_GOOD} on; in thinned draws it comes out too high.",
    )


def _evolution(shown: xr.DataTree) -> str:
    import arviz

    points = min(20, max(1, shown["posterior"].sizes["draw"] // diagnostics.MIN_DRAWS))
    canvas = Canvas.by_variable(shown["posterior"].to_dataset(), {})
    arviz.plot_ess_evolution(
        shown,
        n_points=points,
        min_ess=diagnostics.ESS_GOOD,
        plot_collection=canvas.collection,
    )
    for axes in canvas.axes.values():
        axes.legend(axes.lines[:2], ["bulk", "tail"], loc="upper left")
        axes.set_ylim(bottom=0)
    return canvas.html(
        "Effective sample size",
        "It grows straight with the draws once the chains mix. The dashed line is "
        f"{diagnostics.ESS_GOOD}.",
    )


def _convergence(every: xr.Dataset) -> str:
    import arviz

    bounds: dict[str, tuple[str, float]] = {
        "ess_bulk": ("bulk ESS", diagnostics.ESS_GOOD),
        "ess_tail": ("tail ESS", diagnostics.ESS_GOOD),
    }
    if every.sizes["chain"] > 1:
        bounds["rhat"] = ("R-hat", diagnostics.RHAT_GOOD)
    canvas = Canvas.by_variable(xr.Dataset(dict.fromkeys(bounds, 0)), {})
    arviz.plot_convergence_dist(
        every, diagnostics=list(bounds), ref_line=False, plot_collection=canvas.collection
    )
    for name, (title, bound) in bounds.items():
        canvas.axes[name].axvline(bound, color="0.35", linestyle="--")
        canvas.axes[name].set_title(title)
    return canvas.html(
        "All quantities",
        f"Share of the {len(every.data_vars)} quantities (response, lp, energy, projections, "
        "pixels) whose diagnostic is at most the value below; dashed, what is good.",
    )


def _chain_legend(chains: int) -> str:
    items = "".join(
        f'<li><i class="plot" style="background:{_COLOURS[chain % len(_COLOURS)]}"></i>'
        f"chain {chain}</li>"
        for chain in range(chains)
    )
    return f'<ul class="legend" aria-label="Colours of the chains">{items}</ul>\n'


def _details(table: pd.DataFrame) -> str:
    columns = {
        "mean": ",.2f",
        "sd": ",.2f",
        "ess_bulk": ",.0f",
        "ess_tail": ",.0f",
        "r_hat": ".3f",
    }
    head = "".join(f'<th scope="col" class="number">{name}</th>' for name in columns)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(str(label))}</th>'
        + "".join(f'<td class="number">{row[name]:{form}}</td>' for name, form in columns.items())
        + "</tr>"
        for label, row in table.iterrows()
    )
    return f"""<details><summary>Summary of all quantities (also in summary.csv)</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Summary"><table class="data">
<thead><tr><td></td>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div></details>
"""


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
