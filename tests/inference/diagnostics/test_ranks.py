import numpy as np

from ppl_cnn.inference.diagnostics.ranks import rank_p_values
from ppl_cnn.inference.diagnostics.thresholds import RANKS_DIFFER


def test_only_the_chain_that_differs_is_told_and_p_is_corrected(quantities):
    posterior = quantities(seed=4, draws=400)["posterior"].to_dataset()
    alike = posterior[["response", "lp", "energy"]]
    shifted = alike.assign(lp=alike["lp"] + np.asarray([1.0, 0, 0, 0])[:, None])
    found = rank_p_values(shifted)
    assert found["lp"] < RANKS_DIFFER < min(found["response"], found["energy"])
    alone = rank_p_values(shifted[["lp"]])
    assert found["lp"] == min(1.0, 3 * alone["lp"])
    assert max(rank_p_values(alike).values()) <= 1
