"""The page's plots: ArviZ's traces, ranks, energy, ESS evolution and convergence."""

import io
from collections.abc import Iterable, Mapping
from functools import partial
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image

from ppl_cnn.inference.diagnostics.ranks import rank_p_values
from ppl_cnn.inference.diagnostics.summary import by_label, quiet
from ppl_cnn.inference.diagnostics.thresholds import (
    BFMI_GOOD,
    ESS_DRAWS,
    ESS_GOOD,
    RANKS_DIFFER,
    RHAT_GOOD,
)
from ppl_cnn.inference.diagnostics.verdict.rule import State
from ppl_cnn.inference.importance import Weights
from ppl_cnn.inference.report.frame import colours
from ppl_cnn.inference.report.pictures.encoding import data_address
from ppl_cnn.progress import Bar

_STYLE: Any = {
    **colours.plot_style(),
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "legend.frameon": False,
    "lines.linewidth": 0.8,
    "lines.markersize": 3,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def plots_html(quantities: xr.DataTree, table: pd.DataFrame, state: State) -> str:
    """The plots of a run, as HTML.

    Args:
        quantities: `Diagnosis.quantities`.
        table: `Diagnosis.summary`.
        state: of the run's verdict.
    """
    varying = table.index[table["sd"] > 0]
    every = xr.Dataset(
        {name: values for name, values in by_label(quantities).items() if name in varying}
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
    with matplotlib.rc_context(_STYLE), quiet():
        ranks = partial(_ranks, state=state)
        steps = Bar((_traces, ranks, _energy, _evolution), "plotting", delay=2, leave=False)
        parts = [step(shown) for step in steps]
        parts.append(_convergence(every))
    return _chain_legend(every.sizes["chain"]) + "".join(parts)


def concentration_html(weights: Weights) -> str:
    """How the weight of the proposals concentrates on few of them, as a plot.

    Args:
        weights: of a run by resampling.
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        axes = _axes()
        carried = np.concatenate([[0.0], weights.concentration])
        count = len(carried) - 1
        axes.plot(np.arange(1, count + 1), carried[1:], color=colours.of_chain(0))
        axes.plot(np.arange(1, count + 1), np.arange(1, count + 1) / count, **_EVEN)
        axes.axvline(weights.effective, color=colours.PLOT_AXIS, linestyle="--")
        axes.set(xscale="log", xlabel="heaviest proposals", ylabel="share of the weight")
        axes.set_ylim(0, 1.02)
        image = data_address("png", _figure_png(axes.figure))
    return f"""<figure><img class="plot" width="640" height="400" src="{image}" \
alt="Share of the weight that the heaviest proposals carry">
<figcaption><strong>Concentration</strong> The share of the weight that the k heaviest proposals \
carry together. The dotted line is that of equal weights, the dashed one the weights' ESS.\
</figcaption></figure>
"""


_EVEN: Any = {"color": colours.PLOT_AXIS, "linestyle": ":"}


def _slowest(names: list[str], table: pd.DataFrame) -> list[str]:
    """The quantities to plot one by one: response, lp, energy, and the slowest of the others."""
    chosen = [name for name in names if name in ("response", "lp", "energy")]
    for group, count in (("projections", 2), ("pixels", 1)):
        own = table.loc[[name for name in names if name.startswith(group)], "ess_bulk"]
        chosen += own.sort_values().index[:count].tolist()
    return chosen


class Canvas(NamedTuple):
    """Axes for ArviZ to draw on, each in a figure of its own, so that the page can arrange them.

    ArviZ would make its figures through pyplot and its global state.
    """

    axes: dict[str, Any]
    collection: Any
    """An `arviz.PlotCollection`."""

    @classmethod
    def by_variable(cls, data: xr.Dataset, aes: Mapping[str, list[str]]) -> "Canvas":
        """Makes axes for every variable of `data`."""
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
        """Makes axes for every label of the dimension `column`, whatever the variable."""
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
        """The figures with a title and a caption."""
        images = "".join(
            f'<img class="plot" width="640" height="400" alt="{escape(f"{title}: {name}")}" '
            f'src="{data_address("png", _figure_png(axes.figure))}">\n'
            for name, axes in self.axes.items()
        )
        return (
            f"<figure><figcaption><strong>{title}</strong> {caption}</figcaption>\n"
            f'<div class="plots">\n{images}</div></figure>\n'
        )


def _axes() -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(4, 2.5), layout="constrained").add_subplot()


def _objects(values: Mapping[str, Any]) -> xr.Dataset:
    return xr.Dataset({name: ((), np.array(value, object)) for name, value in values.items()})


def _count(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _figure_png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set(dpi=160)
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    # Lines have few colours: 64 shades take a third of the bytes.
    drawn, stream = Image.fromarray(np.asarray(canvas.buffer_rgba())), io.BytesIO()
    few = drawn.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(stream, "PNG", optimize=True)
    return stream.getvalue()


_BY_CHAIN = {"color": ["chain"], "overlay": ["chain"]}


def _traces(shown: xr.DataTree) -> str:
    import arviz

    canvas = Canvas.by_variable(shown["posterior"].to_dataset(), _BY_CHAIN)
    arviz.plot_trace(shown, plot_collection=canvas.collection)
    return canvas.html(
        "Traces",
        "Chains that have reached their density move about one common level. Besides response, "
        "lp (the log-density) and energy, the plots show the projections and the pixel of smallest "
        "bulk ESS, in grey levels. Ticks at the bottom mark divergences.",
    )


def _ranks(shown: xr.DataTree, state: State) -> str:
    if shown["posterior"].sizes["chain"] == 1:
        return ""
    import arviz

    posterior = shown["posterior"].to_dataset()
    corrected = rank_p_values(posterior)
    count = len(corrected)
    canvas = Canvas.by_variable(posterior, _BY_CHAIN)
    arviz.plot_rank(
        shown,
        envelope_prob=1 - RANKS_DIFFER / count,
        plot_collection=canvas.collection,
    )
    for name, axes in canvas.axes.items():
        axes.axhline(0, color=colours.PLOT_ZERO, linewidth=0.6, zorder=0)
        for text in axes.texts:  # ArviZ writes p as it is without the correction
            text.set_text(f"p = {corrected[name]:.2g}")
    return canvas.html(
        "Ranks",
        "The ranks of each chain's draws among all draws, as the difference between their "
        "distribution and the uniform one. A chain that agrees with the others stays near the "
        "middle line. p tests that all ranks are uniform, corrected for the "
        f"{count} quantities shown. {_marked(corrected, state)}",
    )


def _marked(corrected: Mapping[str, float], state: State) -> str:
    """What the black points mean, if there are any."""
    marked = [name for name, p in corrected.items() if p < RANKS_DIFFER]
    if not marked:
        return f"Black points would mark departures of p below {RANKS_DIFFER:g}; there are none."
    names = ", ".join(marked)
    said = f"Black points mark the departures where p is below {RANKS_DIFFER:g}: {names}."
    if state != "good":
        return escape(said)
    return escape(
        f"{said} The verdict is good all the same: it goes by R-hat and ESS, and by R-hat the "
        f"difference is small. The test sees smaller ones the more draws there are."
    )


def _energy(shown: xr.DataTree) -> str:
    if "energy" not in shown["posterior"].data_vars:
        return ""
    import arviz

    data = xr.Dataset({"Energy": ("energy", [0, 0])}, {"energy": ["marginal", "transition"]})
    canvas = Canvas.by_column(data, {"color": ["energy"]}, ["energy", "bfmi"])
    arviz.plot_energy(
        shown,
        threshold=BFMI_GOOD,
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
        "If transitions are much narrower than the marginal distribution, the energy is explored "
        f"slowly. E-BFMI compares the two in each chain; at least {BFMI_GOOD} is good. Thinned "
        "draws make it too large.",
    )


def _evolution(shown: xr.DataTree) -> str:
    draws = shown["posterior"].sizes["draw"]
    if draws < ESS_DRAWS:
        return ""
    import arviz

    points = min(20, draws // ESS_DRAWS)
    canvas = Canvas.by_variable(shown["posterior"].to_dataset(), {})
    arviz.plot_ess_evolution(
        shown,
        n_points=points,
        min_ess=ESS_GOOD,
        plot_collection=canvas.collection,
    )
    for axes in canvas.axes.values():
        axes.legend(axes.lines[:2], ["bulk", "tail"], loc="upper left")
        axes.set_ylim(bottom=0)
    return canvas.html(
        "Effective sample size",
        "Once the chains mix, it grows in proportion to the draws. The dashed line marks "
        f"{ESS_GOOD}.",
    )


def _convergence(every: xr.Dataset) -> str:
    import arviz

    bounds: dict[str, tuple[str, float]] = {}
    if every.sizes["draw"] >= ESS_DRAWS:
        bounds["ess_bulk"] = ("bulk ESS", ESS_GOOD)
        bounds["ess_tail"] = ("tail ESS", ESS_GOOD)
    if every.sizes["chain"] > 1:
        bounds["rhat"] = ("R-hat", RHAT_GOOD)
    if not bounds:
        return ""
    canvas = Canvas.by_variable(xr.Dataset(dict.fromkeys(bounds, 0)), {})
    arviz.plot_convergence_dist(
        every, diagnostics=list(bounds), ref_line=False, plot_collection=canvas.collection
    )
    for name, (title, bound) in bounds.items():
        canvas.axes[name].axvline(bound, color=colours.PLOT_AXIS, linestyle="--")
        canvas.axes[name].set_title(title)
    return canvas.html(
        "All quantities",
        f"The share of the {len(every.data_vars)} quantities (response, lp, energy, projections, "
        "pixels) whose diagnostic is at most the value below. The dashed line marks what is good.",
    )


def _chain_legend(chains: int) -> str:
    items = "".join(
        f'<li><i class="plot" style="background:{colours.of_chain(chain)}"></i>chain {chain}</li>'
        for chain in range(chains)
    )
    return f'<ul class="legend" aria-label="Colours of the chains">{items}</ul>\n'
