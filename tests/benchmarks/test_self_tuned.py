"""Other libraries' kernels, as the benchmark of samplers runs them, on a Gaussian."""

from pathlib import Path

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import pytest

CENTRE = jnp.asarray([[1.0, -0.5, 0.0], [0.0, 2.0, 0.3]])


class Shifted:
    """N(CENTRE, I): the tilt is linear."""

    latent_shape = CENTRE.shape

    def tilt(self, z, params):
        return jnp.sum(params * z)

    def potential(self, z, params):
        return jnp.sum(z * z) / 2 - self.tilt(z, params)


@pytest.mark.long
@pytest.mark.parametrize("name", ["mclmc", "adjusted_mclmc", "chees", "meads", "low_rank_nuts"])
def test_a_kernel_that_tunes_itself_draws_from_the_density(name, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks.sampling.kernels import kernel_of
    from benchmarks.sampling.self_tuned import SELF_TUNED

    kernel = kernel_of(f"blackjax-{name}", Shifted())
    chains = SELF_TUNED[f"blackjax-{name}"].chains or 4
    z = CENTRE[None] + jax.random.normal(jax.random.key(0), (chains, *CENTRE.shape))
    states, spent = jax.jit(kernel.warm, static_argnums=3)(CENTRE, jax.random.key(1), z, 8_000)

    @jax.jit
    def draws(states):
        def move(states, _):
            states = jax.vmap(kernel.move, (None, 0))(CENTRE, states)
            return states, jax.vmap(kernel.told)(states)

        return jax.lax.scan(move, states, length=40_000 // chains)[1]

    told = draws(states)
    assert 500 < spent < 40_000
    assert float(told.gradients.min()) >= 1
    values = np.moveaxis(np.asarray(told.z, np.float64), 0, 1).reshape(chains, -1, CENTRE.size)
    for at, true in enumerate(np.ravel(CENTRE)):
        own = values[:, :, at]
        assert arviz.ess(own) > 200
        assert own.mean() == pytest.approx(true, abs=4.5 * arviz.mcse(own, method="mean"))
        # mclmc's own tolerance leaves some per cent.
        assert own.std() == pytest.approx(1.0, abs=0.05 + 4.5 * arviz.mcse(own, method="sd"))
