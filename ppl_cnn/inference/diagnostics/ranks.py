"""Whether the ranks of each chain's draws among all draws are uniform: a test, for several."""

import numpy as np
import xarray as xr

from ppl_cnn.inference.diagnostics.summary import quiet


def rank_p_values(quantities: xr.Dataset) -> dict[str, float]:
    """The p-value of each quantity's ranks, corrected for the number of quantities tested.

    A small one says that the chains are distributed differently, with allowance for how slowly
    each of them mixes. The correction is Bonferroni's: p times the number of tests, at most 1.

    Args:
        quantities: scalars (chain, draw), of two chains or more.

    Source: ArviZ's multi-chain test of uniformity, which its `plot_rank` shows.
    """
    with quiet():
        ranks = quantities.azstats.compute_ranks(dim=["chain", "draw"], relative=True)
        found, _, _ = ranks.azstats.mchain_uniformity_test(dim=["chain", "draw"])
    names = list(map(str, quantities.data_vars))
    return {name: float(np.minimum(1.0, len(names) * found[name].item())) for name in names}
