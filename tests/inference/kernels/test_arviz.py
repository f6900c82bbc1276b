"""Our kernels in NumPyro's MCMC, and ArviZ's conversion of the result."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC

from ppl_cnn.inference.kernels.split import Split
from ppl_cnn.inference.kernels.tempered import Tempered

FIELDS = ("potential_energy", "energy", "num_steps", "accept_prob")


def array_tilt(z):
    return z[0]


def tree_tilt(z):
    return z["mean"] + jnp.sum(z["noise"])


def tree_start(chains):
    return {"mean": jnp.zeros(chains), "noise": jnp.zeros((chains, 3))}


ARRAY = (array_tilt, lambda chains: jnp.zeros((chains, 2)), {"Param:0": (2, 30, 2)})
TREE = (tree_tilt, tree_start, {"mean": (2, 30), "noise": (2, 30, 3)})


def tempered(tilt):
    return Tempered(tilt, rungs=2)


@pytest.mark.parametrize(
    ("kind", "tilt", "start", "names"),
    [
        (Split, *ARRAY),
        (tempered, *TREE),
        pytest.param(Split, *TREE, marks=pytest.mark.long),
        pytest.param(tempered, *ARRAY, marks=pytest.mark.long),
    ],
    ids=["split-array", "tempered-dictionary", "split-dictionary", "tempered-array"],
)
def test_arviz_converts_a_run(kind, tilt, start, names):
    mcmc = MCMC(
        kind(tilt),
        num_warmup=20,
        num_samples=30,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), init_params=start(2), extra_fields=FIELDS)
    tree = az.from_numpyro(mcmc)
    posterior = tree["posterior"].to_dataset()
    assert {name: posterior[name].shape for name in posterior.data_vars} == names
    stats = tree["sample_stats"].to_dataset()
    assert {"diverging", "lp", "energy", "n_steps", "acceptance_rate"} <= set(stats.data_vars)
    assert not stats["diverging"].any()
    np.testing.assert_array_equal(
        stats["lp"], -mcmc.get_extra_fields(group_by_chain=True)["potential_energy"]
    )
    mcmc.print_summary()
