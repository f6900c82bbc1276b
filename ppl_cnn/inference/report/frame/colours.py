"""The colours of a report: of the page, of the chains in plots, of maps.

The page's style sheet names the page's colours as variables (`var(--ink)`); plots and maps take
theirs from here.
"""

from typing import Any

PAGE_LIGHT = {
    "paper": "#fdfdfc",
    "ink": "#1d1d1f",
    "soft": "#63636a",
    "line": "#dcdcd8",
    "wash": "#f3f3f0",
    "good": "#1d7a46",
    "short": "#8a5a00",
    "bad": "#b3261e",
    "missing": "var(--soft)",
    "focus": "#1a5fb4",
}
"""Colours of the page by name; a verdict's state has one."""

PAGE_DARK = {
    "paper": "#141416",
    "ink": "#e9e9e6",
    "soft": "#a0a0a6",
    "line": "#37373c",
    "wash": "#1e1e21",
    "good": "#5fc98c",
    "short": "#e3ab4a",
    "bad": "#ff8a80",
    "focus": "#8ab8f5",
}
"""What changes for readers who prefer a dark page, which also shows the plots inverted."""

CHAINS = ("#0072b2", "#d97706", "#009e73", "#c0478f", "#3a9bd0", "#c83737", "#6a4fc0", "#8a7a00")
"""Colours of the chains in plots, in turn; of medium luminance, as the dark page inverts plots."""

PLOT_TEXT = "0.15"
PLOT_LABEL = "0.25"
PLOT_AXIS = "0.35"
"""Axes, ticks and lines of thresholds."""
PLOT_ZERO = "0.6"

MAP = "cividis"
"""Matplotlib's name of the colours of maps. Nuñez, Anderton, Renslow, Optimizing colormaps with
consideration for color vision deficiency, PLoS ONE 13(7), 2018: it looks the same with and without,
and its lightness alone tells the value."""


def of_chain(chain: int) -> str:
    """The colour of a chain in plots and in their legend."""
    return CHAINS[chain % len(CHAINS)]


def page_variables() -> str:
    """The page's colours as CSS."""

    def rule(colours: dict[str, str]) -> str:
        return ":root { " + " ".join(f"--{name}: {it};" for name, it in colours.items()) + " }"

    dark = f"@media (prefers-color-scheme: dark) {{\n  {rule(PAGE_DARK)}\n}}"
    return f"{rule(PAGE_LIGHT)}\n{dark}\n"


def plot_style() -> dict[str, Any]:
    """Matplotlib's settings of colours."""
    return {
        "axes.edgecolor": PLOT_AXIS,
        "axes.labelcolor": PLOT_LABEL,
        "axes.prop_cycle": f"cycler('color', {list(CHAINS)})",
        "text.color": PLOT_TEXT,
        "xtick.color": PLOT_AXIS,
        "ytick.color": PLOT_AXIS,
    }
