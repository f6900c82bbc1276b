"""What the stored draws say about their chains: scalars, ArviZ's summary, a verdict in a sentence.

An image has too many pixels to diagnose each by rank statistics, so a run is judged by the
response, lp, the energy, random projections of the image and a grid of pixels.
"""

import contextlib
import logging
import math
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float, Float32, Int
from tqdm import tqdm

from ppl_cnn import InputError
from ppl_cnn.inference.store import DAMAGE, open_draws

MIN_DRAWS = 4
"""Per chain; split R-hat needs two draws in each half."""
ESS_DRAWS = 10
"""Per chain; of fewer, ArviZ's effective sample size is n log10 n whatever the chains do, as it
looks at no autocorrelation in halves of at most four draws."""
RHAT_GOOD = 1.01
"""Vehtari, Gelman, Simpson, Carpenter, Bürkner, Rank-normalization, folding, and localization: an
improved R-hat for assessing convergence of MCMC, Bayesian Analysis 16(2), 2021."""
RHAT_POOR = 1.05
"""Above it the chains disagree, unless they are so short that chance may explain it; ours."""
ESS_GOOD = 400
"""Over all chains, bulk and tail: from there on the error estimates themselves are reliable.
Vehtari et al. 2021, who count 50 for each half of four chains; more chains don't need more."""
BFMI_GOOD = 0.3
"""Betancourt, Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo, 2016,
arXiv 1604.00695, as Stan applies it."""
DIVERGENT_SHARE = 0.01
"""From this share of divergent draws on, what the chains missed may be large; ours."""

_PROJECTIONS = 50
_SUMMARISED = 8
"""Of them, in the summary."""
_GRID = 3
_BLOCK_BYTES = 2**28
_NEEDED = (
    "posterior/image",
    "posterior/response",
    "sample_stats/lp",
    "sample_stats/energy",
    "sample_stats/acceptance_rate",
    "sample_stats/diverging",
)


def read(folder: Path) -> xr.DataTree:
    """Opens the draws of a run; images stay on disk until they are asked for.

    Args:
        folder: a run of `ppl_cnn.sample`, finished or not.

    Returns:
        `posterior` with `image` (chain, draw, row, col, channel) in pixel units minus the mean
        and `response` (chain, draw); `sample_stats` (chain, draw); and, where the reference has a
        Stein mean, `stein` with `image` (chain, block, row, col, channel) and `draws` (block).

    Raises:
        InputError: there is no store, it is damaged, or it holds something else.
    """
    path = folder / "draws.zarr"
    tree = open_draws(path)
    for name in _NEEDED:
        group, _, leaf = name.partition("/")
        if leaf not in tree.children[group].dataset:
            raise InputError(f"{path} is no store of ppl_cnn's draws: it lacks {name}.")
    return tree


def variable(tree: xr.DataTree, path: str) -> xr.DataArray:
    """The variable at `group/name`."""
    group, name = path.split("/")
    return tree.children[group].dataset[name]


class Scan(NamedTuple):
    """What one pass over the stored images keeps; all in pixel units minus the mean."""

    projections: Float[np.ndarray, "chain draw projection"]
    """Inner products with fixed random directions of about unit length."""
    pixels: Float32[np.ndarray, "chain draw pixel"]
    """A regular grid of pixels."""
    places: Int[np.ndarray, "pixel 3"]
    """Row, column and channel of each, counted in the stored image."""
    mean: Float[np.ndarray, "chain row col channel"]
    """Of each chain's draws."""
    shown: Float32[np.ndarray, "chain shown row col channel"]
    """Evenly spread draws, whole."""
    running: Float32[np.ndarray, "chain shown row col channel"]
    """The mean of each chain's draws up to and with each of these."""
    shown_draws: Int[np.ndarray, " shown"]


def scan(tree: xr.DataTree, shown: int = 8) -> Scan:
    """Reads all images once, block by block, so that memory stays flat in the number of draws.

    Args:
        tree: as `read` or `ppl_cnn.draw` return it.
        shown: how many draws of each chain to keep whole.

    Raises:
        InputError: there are fewer than 4 draws, or a chunk is damaged.
    """
    image = variable(tree, "posterior/image")
    chains, draws, *shape = image.shape
    if draws < MIN_DRAWS or not chains:
        raise InputError(
            f"The run holds {draws} draws of each chain so far; at least {MIN_DRAWS} are needed to "
            f"diagnose them."
        )
    directions = _directions(math.prod(shape))
    places = _places(shape)
    spread = np.unique(np.linspace(0, draws - 1, min(shown, draws)).round().astype(int))
    projections = np.empty((chains, draws, directions.shape[1]))
    pixels = np.empty((chains, draws, len(places)), np.float32)
    total = np.zeros((chains, *shape))
    kept = np.empty((chains, len(spread), *shape), np.float32)
    running = np.empty_like(kept)
    for here, block in image_blocks(tree, "reading draws"):
        pixels[:, here] = block[:, :, *places.T]
        shown_here = np.flatnonzero((spread >= here.start) & (spread < here.stop))
        with np.errstate(invalid="ignore", over="ignore"):
            projections[:, here] = block.reshape(chains, block.shape[1], -1) @ directions
            done = 0
            for number in shown_here:
                kept[:, number] = block[:, spread[number] - here.start]
                end = spread[number] + 1 - here.start
                total += block[:, done:end].sum(axis=1, dtype=np.float64)
                running[:, number] = total / (spread[number] + 1)
                done = end
            total += block[:, done:].sum(axis=1, dtype=np.float64)
    return Scan(projections, pixels, places, total / draws, kept, running, spread)


def image_blocks(
    tree: xr.DataTree, doing: str
) -> Iterator[tuple[slice, Float32[np.ndarray, "chain draw row col channel"]]]:
    """The stored images, a block of draws after another, with a bar from two seconds on.

    Args:
        tree: as `read` or `ppl_cnn.draw` return it.
        doing: what the bar says.

    Yields:
        Which draws they are, and the images.

    Raises:
        InputError: a chunk is damaged.
    """
    image = variable(tree, "posterior/image")
    draws, step = image.sizes["draw"], _block(image)
    for start in tqdm(range(0, draws, step), doing, delay=2, unit="block", leave=False):
        here = slice(start, min(start + step, draws))
        yield here, loaded(image.isel(draw=here))


def _directions(size: int) -> Float32[np.ndarray, "size projection"]:
    # The same for every run of that image size, so that two runs' projections compare.
    normal = np.random.default_rng(0).standard_normal((size, _PROJECTIONS), np.float32)
    return normal / np.float32(math.sqrt(size))


def _places(shape: list[int]) -> Int[np.ndarray, "pixel 3"]:
    rows, cols = (
        np.unique(((np.arange(_GRID) + 0.5) / _GRID * size).astype(int)) for size in shape[:2]
    )
    # The middle channel: green in RGB as in BGR.
    grid = np.meshgrid(rows, cols, shape[2] // 2, indexing="ij")
    return np.stack([axis.ravel() for axis in grid], axis=1)


def _block(image: xr.DataArray) -> int:
    """Draws to read at once: the store's chunk, cut down where that is too large."""
    chunks = image.encoding.get("chunks") or (0, 16)
    bytes_per_draw = max(1, image.nbytes // image.shape[1])
    return max(1, min(chunks[1], _BLOCK_BYTES // bytes_per_draw))


def loaded(array: xr.DataArray) -> np.ndarray:
    """A stored array's values.

    Raises:
        InputError: a chunk is damaged.
    """
    try:
        return array.values
    except DAMAGE as error:
        draws = array.coords["draw"].values if "draw" in array.coords else []
        of_draws = f" of the draws {draws[0]} to {draws[-1]}" if len(draws) else ""
        raise InputError(
            f"The stored {array.name}{of_draws} can't be read, the store is damaged "
            f"({_first_line(error)})."
        ) from None


def _first_line(error: Exception) -> str:
    line = (str(error) or type(error).__name__).splitlines()[0]
    return textwrap.shorten(line, 100, placeholder=" ...").rstrip(".")


def scalars(tree: xr.DataTree, images: Scan | None = None) -> xr.DataTree:
    """The quantities by which a run is judged, in memory, as ArviZ takes them.

    Args:
        tree: as `read` or `ppl_cnn.draw` return it.
        images: the result of `scan`, if it is at hand.

    Returns:
        `posterior` with `response`, `lp`, `energy` (chain, draw), `projections` (.., projection)
        and `pixels` (.., pixel), the last two in pixel units; `sample_stats` (chain, draw). A pixel
        is labelled `row,col` in the network's image, in a colour one `row,col,channel`.

    Raises:
        InputError: there are fewer than 4 draws, or a chunk is damaged.
    """
    images = scan(tree) if images is None else images
    stats = {
        str(name): (("chain", "draw"), loaded(values))
        for name, values in tree["sample_stats"].data_vars.items()
        if values.dims == ("chain", "draw")
    }
    sample = ("chain", "draw")
    chains, draws, _ = images.pixels.shape
    steps = {"chain": np.arange(chains), "draw": np.arange(draws)}
    image = variable(tree, "posterior/image")
    posterior = xr.Dataset(
        {
            "response": (sample, loaded(variable(tree, "posterior/response")).astype(np.float64)),
            "lp": (sample, stats["lp"][1].astype(np.float64)),
            "energy": (sample, stats["energy"][1].astype(np.float64)),
            "projections": ((*sample, "projection"), images.projections[..., :_SUMMARISED]),
            "pixels": ((*sample, "pixel"), images.pixels.astype(np.float64)),
        },
        {
            **steps,
            "projection": np.arange(_SUMMARISED),
            "pixel": [_label(image, place) for place in images.places],
        },
    )
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": xr.Dataset(stats, steps)})


def _label(image: xr.DataArray, place: Int[np.ndarray, " 3"]) -> str:
    used = ("row", "col", "channel") if image.sizes["channel"] > 1 else ("row", "col")
    return ",".join(str(image[dim].values[at]) for dim, at in zip(used, place, strict=False))


class SteinMeans(NamedTuple):
    """Each chain's Stein mean image, (s^2/T) mean grad f over its draws, in pixel units.

    By Stein's identity its expectation is that of the image minus the mean, but free of the
    reference's noise. It is stored by blocks of draws.
    """

    running: Float32[np.ndarray, "chain step row col channel"]
    """Over all draws up to the end of each block in which a shown draw lies."""
    draws: Int[np.ndarray, " step"]
    """How many these are."""
    step: Int[np.ndarray, " shown"]
    """Which of them is that of each shown draw."""


def stein_means(tree: xr.DataTree, shown: Int[np.ndarray, " shown"]) -> SteinMeans | None:
    """Reads the Stein means; None if the reference has none.

    Args:
        tree: as `read` or `ppl_cnn.draw` return it.
        shown: draws for which to keep them, in order.

    Raises:
        InputError: the store is damaged.
    """
    if "stein" not in tree.children or not {"image", "draws"} <= set(tree["stein"].data_vars):
        return None
    image = variable(tree, "stein/image")
    ends = np.cumsum(loaded(variable(tree, "stein/draws")))
    if not len(ends) or ends[-1] <= shown[-1]:
        raise InputError("The store lacks Stein mean images of some draws, it is damaged.")
    blocks, step = np.unique(np.searchsorted(ends, shown, side="right"), return_inverse=True)
    chains, _, *shape = image.shape
    running = np.empty((chains, len(blocks), *shape), np.float32)
    total = np.zeros((chains, *shape))
    for block, count in enumerate(np.diff(ends, prepend=0)):
        if count:
            total += count * loaded(image.isel(block=block)).astype(np.float64)
        running[:, blocks == block] = (total / max(1, ends[block]))[:, None]
    return SteinMeans(running, ends[blocks], step)


class SteinCheck(NamedTuple):
    """Root mean squares over pixels, in pixel units."""

    difference: float
    """Of the mean image and the Stein mean image."""
    chance: float
    """What that difference would be by chance, from its spread over the chains."""


def stein_check(
    mean: Float[np.ndarray, "chain row col channel"],
    stein: Float[np.ndarray, "chain row col channel"],
) -> SteinCheck | None:
    """Whether the draws obey Stein's identity, E[x] = (s^2/T) E[grad f(x)].

    A chain that has reached its density obeys it up to chance whatever the network is.

    Args:
        mean: each chain's mean image.
        stein: each chain's Stein mean image.

    Returns:
        None for a single chain, whose spread is unknown, and for means that aren't finite.
    """
    chains = len(mean)
    with quiet():
        difference = mean - stein
        if chains < 2 or not np.isfinite(difference).all():
            return None
    chance = difference.var(axis=0, ddof=1) / chains
    return SteinCheck(math.sqrt(np.mean(difference.mean(axis=0) ** 2)), math.sqrt(np.mean(chance)))


def by_label(quantities: xr.DataTree) -> dict[str, xr.DataArray]:
    """Every scalar (chain, draw), by the label that `summary` gives it.

    Args:
        quantities: the result of `scalars`.
    """
    posterior = quantities["posterior"].to_dataset()
    every = {name: posterior[name] for name in ("response", "lp", "energy")}
    for name, dim in (("projections", "projection"), ("pixels", "pixel")):
        for label in posterior[dim].values:
            every[f"{name}[{label}]"] = posterior[name].sel({dim: label}, drop=True)
    return every


def summary(quantities: xr.DataTree) -> pd.DataFrame:
    """ArviZ's summary of every scalar, unrounded: mean, sd, interval, ESS, R-hat, MCSE.

    Args:
        quantities: the result of `scalars`.

    Returns:
        A row for each; ESS and MCSE are NaN of fewer than 10 draws a chain, which can't tell them.
    """
    with quiet():
        import arviz

        table = pd.DataFrame(arviz.summary(quantities, round_to="none"))
    if quantities["posterior"].sizes["draw"] < ESS_DRAWS:
        table[["ess_bulk", "ess_tail", "mcse_mean", "mcse_sd"]] = math.nan
    return table


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """ArviZ logs NaN, constants and single chains for every quantity; the verdict says it once."""
    logger = logging.getLogger("arviz_stats")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            yield
    finally:
        logger.setLevel(level)


class Extreme(NamedTuple):
    """The worst value of a diagnostic, and whose it is."""

    value: float
    """NaN if it could be computed for nothing."""
    of: str


_GOOD = (
    "The chains agree and the draws suffice: means, quantiles and their standard errors can be "
    "relied on."
)


class Verdict(NamedTuple):
    """What the diagnostics say about a run."""

    state: str
    """`good`, `short` (nothing is wrong, but something lacks) or `bad` (don't use the draws)."""
    sentence: str
    """The state and what to do about it."""
    rhat: Extreme
    """Largest rank-normalised split R-hat of all scalars; NaN with a single chain."""
    ess_bulk: Extreme
    """Smallest of all scalars, over all chains together; NaN of fewer than 10 draws a chain."""
    ess_tail: Extreme
    bfmi: Extreme
    """Smallest energy fraction of missing information (E-BFMI) of all chains."""
    divergences: int
    """Draws with a divergence on the way to them."""
    nonfinite: int
    """Draws whose image, response, lp or energy is NaN or infinite."""
    draws: int
    """Over all chains."""


class Findings(NamedTuple):
    """What else speaks against a run, in sentences."""

    faults: tuple[str, ...] = ()
    """Why the draws must not be used."""
    shortages: tuple[str, ...] = ()
    """What they lack."""
    explained: bool = False
    """Whether the faults say why the chains disagree."""

    def and_those(self, other: "Findings") -> "Findings":
        """Both."""
        return Findings(
            self.faults + other.faults,
            self.shortages + other.shortages,
            self.explained or other.explained,
        )


def verdict(
    quantities: xr.DataTree,
    table: pd.DataFrame,
    config: Mapping[str, Any] | None = None,
    findings: Findings | None = None,
) -> Verdict:
    """Judges a run and says what to do about it.

    Args:
        quantities: the result of `scalars`.
        table: the result of `summary`.
        config: the run's settings, of which `warmup`, `thin` and `target_accept` make the
            advice concrete.
        findings: of mixing across starts, and of replicas.
    """
    posterior = quantities.children["posterior"].to_dataset()
    table = table[table["sd"] > 0]
    chains, draws = posterior["response"].shape
    found = Verdict(
        state="",
        sentence="",
        rhat=largest_rhat(table),
        ess_bulk=_extreme(table["ess_bulk"]),
        ess_tail=_extreme(table["ess_tail"]),
        bfmi=_smallest_bfmi(posterior["energy"].values),
        divergences=int(variable(quantities, "sample_stats/diverging").sum()),
        nonfinite=int((~_finite(posterior)).sum()),
        draws=chains * draws,
    )
    findings = findings or Findings()
    bad = _faults(found, quantities, findings, config or {})
    if bad:
        return found._replace(state="bad", sentence=" ".join(bad))
    lacking = [*findings.shortages, *_shortages(found, chains, draws, config or {})]
    if lacking:
        return found._replace(state="short", sentence=" ".join(lacking))
    return found._replace(state="good", sentence=_GOOD)


def largest_rhat(table: pd.DataFrame) -> Extreme:
    """Of all scalars that aren't constant.

    Args:
        table: the result of `summary`.
    """
    return _extreme(table["r_hat"][table["sd"] > 0], largest=True)


def _extreme(column: pd.Series, largest: bool = False) -> Extreme:
    column = column.dropna()
    if column.empty:
        return Extreme(math.nan, "")
    label = column.idxmax() if largest else column.idxmin()
    return Extreme(float(column[label]), str(label))


def _smallest_bfmi(energy: Float[np.ndarray, "chain draw"]) -> Extreme:
    with quiet():
        ratio = np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1, ddof=1)
    chains = [f"chain {chain}" for chain in range(len(energy))]
    return _extreme(pd.Series(ratio, chains))


def _finite(posterior: xr.Dataset) -> Bool[np.ndarray, "chain draw"]:
    finite = [np.isfinite(values.values) for values in posterior.data_vars.values()]
    return np.logical_and.reduce([each.reshape(*each.shape[:2], -1).all(axis=2) for each in finite])


def disagree(quantities: xr.DataTree) -> bool:
    """Whether the chains differ by more than chance, given how slowly each of them mixes.

    Args:
        quantities: the result of `scalars`.
    """
    return any(_apart(each.values) for each in by_label(quantities).values())


def _apart(values: Float[np.ndarray, "chain draw"]) -> bool:
    import arviz

    with quiet():
        rhat = float(arviz.rhat(values))
    return rhat > RHAT_POOR and rhat > rhat_by_chance(values)


def rhat_by_chance(values: Float[np.ndarray, "chain draw"]) -> float:
    """What split R-hat exceeds once in 1,000 times if all chains have the same density, given
    how slowly each mixes.

    R-hat^2 = 1 + F/n up to terms of 1/draws, with n effective draws in each of m half chains and
    F distributed as F(m - 1, m(n - 1)).
    """
    import arviz
    from scipy import stats

    with quiet():
        ess = np.sum([arviz.ess(chain[None], method="bulk") for chain in values])
        halves = 2 * len(values)
        n = max(1.5, ess / halves)
        return math.sqrt(1 + stats.f.ppf(0.999, halves - 1, halves * (n - 1)) / n)


def _faults(
    found: Verdict, quantities: xr.DataTree, findings: Findings, config: Mapping[str, Any]
) -> list[str]:
    """Why the draws must not be used, and what to do; empty if nothing speaks against them."""
    warmup = config.get("warmup")
    longer = f"--warmup {2 * warmup}" if warmup else "a longer warmup"
    response = variable(quantities, "posterior/response").values
    acceptance = float(variable(quantities, "sample_stats/acceptance_rate").mean())
    still = int((np.ptp(response, axis=1) == 0).sum())
    if found.nonfinite:
        return [
            f"{found.nonfinite:,} of {found.draws:,} draws aren't finite, so the response "
            f"overflows: raise the temperature, or check the network's weights and preprocessing."
        ]
    if np.ptp(response) == 0 and acceptance > 0.1:
        return [
            "The response is the same in every draw: the unit is dead on these images, and its "
            "density is the reference itself. Choose another unit or a reference of more contrast."
        ]
    if still:
        return [
            f"{still} of {len(response)} chains stand still, as nearly every proposal was refused: "
            f"the step is too large, so give its adaptation {longer}."
        ]
    faults = list(findings.faults)
    if not findings.explained and disagree(quantities):
        faults.append(
            f"The chains disagree: they haven't forgotten their starts, or they sit in different "
            f"modes of the density. Run again with {longer} and more draws; if they still "
            f"disagree, look at each chain by itself, or raise the temperature."
        )
    if found.divergences > DIVERGENT_SHARE * found.draws:
        faults.append(
            f"{found.divergences:,} of {found.draws:,} draws saw a divergence, so parts of the "
            f"density are left out: use smaller steps{_steps_option(config)}, or {longer}."
        )
    return faults


def _shortages(found: Verdict, chains: int, draws: int, config: Mapping[str, Any]) -> list[str]:
    """What sound draws still lack, and what to do; empty if nothing."""
    shortages = []
    if 0 < found.divergences <= DIVERGENT_SHARE * found.draws:
        shortages.append(
            f"Of {found.draws:,} draws {found.divergences:,} saw a divergence: use smaller steps"
            f"{_steps_option(config)} and see whether the results stay."
        )
    if found.bfmi.value < BFMI_GOOD:
        shortages.append(
            "The energy changes slowly from draw to draw, so the tails of the density may be "
            "missed: draw more, with heavier thinning to keep the store small."
        )
    if chains == 1:
        shortages.append(
            "One chain alone can't show that it has reached its density: run at least four "
            "(--chains 4) and see whether they agree."
        )
    ess = min(found.ess_bulk.value, found.ess_tail.value)
    unknown = draws < ESS_DRAWS
    if unknown or ess < ESS_GOOD or found.rhat.value > RHAT_GOOD:
        # R-hat^2 - 1 falls as 1/draws once the chains mix, and the ESS grows with them.
        excess = (found.rhat.value**2 - 1) / (RHAT_GOOD**2 - 1)
        factor = np.nanmax([1.5, ESS_GOOD / (found.draws if unknown else ess), excess])
        if unknown:
            lack = "tell how many of them are effective"
        elif ess < ESS_GOOD:
            lack = "rely on their error estimates"
        else:
            lack = "see whether the chains agree"
        option = _draws_option(draws * factor, draws, config)
        shortages.append(f"There are too few draws to {lack}: {option}.")
    return shortages


def _steps_option(config: Mapping[str, Any]) -> str:
    accept = config.get("target_accept")
    return f" (--target-accept {1 - (1 - accept) / 2:g})" if accept else ""


def _round_up(number: float) -> int:
    unit = 10 ** max(1, math.floor(math.log10(number)) - 1) * 5
    return math.ceil(number / unit) * unit


def _draws_option(wanted: float, draws: int, config: Mapping[str, Any]) -> str:
    most = max(1000, 10 * draws)
    if wanted <= most:
        return f"the same command with --draws {_round_up(wanted)} goes on from here and should do"
    every = math.ceil(wanted / most)
    thin = every * config.get("thin", 1)
    return f"a new run with --draws {_round_up(wanted / every)} --thin {thin} should do"
