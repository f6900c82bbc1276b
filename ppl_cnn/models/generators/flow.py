"""A normalizing flow of vectors: affine couplings, which turn normal noise into latents.

Source: Dinh, Sohl-Dickstein, Bengio, Density estimation using Real NVP, 2017, arXiv 1605.08803.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ppl_cnn.models.generators.layers import LayerWeights, Weights, mlp, mlp_weights

_LARGEST = 1.5
"""Bound of a coupling's log scale, so that no layer stretches without limit."""


class Flow(NamedTuple):
    """The sizes of a flow; `weights` makes its first weights."""

    dim: int
    """Length of a vector, an even number."""
    couplings: int
    """Number of couplings. Each changes one half of the vector, given the other half."""
    width: int
    """Length of the hidden layers of a coupling's network."""

    def weights(self, key: PRNGKeyArray) -> dict[str, Weights]:
        """The first weights: the flow is nearly the identity, up to the order of entries.

        Args:
            key: random key.
        """
        half = self.dim // 2
        params: dict[str, Weights] = {
            "flow.affine": {"weight": jnp.zeros(self.dim), "bias": jnp.zeros(self.dim)}
        }
        for index, one in enumerate(jax.random.split(key, self.couplings)):
            made = mlp_weights(one, f"flow.{index}", (half, self.width, self.width, self.dim))
            last = made[f"flow.{index}.2"]
            params |= made | {f"flow.{index}.2": {**last, "weight": last["weight"] * 0.01}}
        return params

    def to_data(self, params: LayerWeights, z: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
        """Noise to latents.

        Args:
            params: the weights.
            z: of N(0, I).
        """
        for index in range(self.couplings):
            given, changed = jnp.split(z, 2, axis=-1)
            shift, scale = self._affine(params, index, given)
            z = jnp.concatenate([given, changed * jnp.exp(scale) + shift], axis=-1)
            z = z[:, np.argsort(_order(self.dim, index))]
        affine = params["flow.affine"]
        return z * jnp.exp(affine["weight"])[None] + affine["bias"][None]

    def to_noise(
        self, params: LayerWeights, u: Float[Array, "n dim"]
    ) -> tuple[Float[Array, "n dim"], Float[Array, " n"]]:
        """Latents to noise: the inverse of `to_data`, and log |det| of its Jacobian.

        Args:
            params: the weights.
            u: latents.
        """
        affine = params["flow.affine"]
        z = (u - affine["bias"][None]) * jnp.exp(-affine["weight"])[None]
        log_det = jnp.broadcast_to(-affine["weight"].sum(), (len(u),))
        for index in reversed(range(self.couplings)):
            given, changed = jnp.split(z[:, _order(self.dim, index)], 2, axis=-1)
            shift, scale = self._affine(params, index, given)
            z = jnp.concatenate([given, (changed - shift) * jnp.exp(-scale)], axis=-1)
            log_det = log_det - scale.sum(axis=-1)
        return z, log_det

    def log_prob(self, params: LayerWeights, u: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """The log-density of latents, in nats.

        Args:
            params: the weights.
            u: latents.
        """
        z, log_det = self.to_noise(params, u)
        normal: Array = -0.5 * (z * z).sum(axis=-1) - 0.5 * self.dim * np.log(2 * np.pi).item()
        return normal + log_det

    def _affine(
        self, params: LayerWeights, index: int, given: Float[Array, "n half"]
    ) -> tuple[Float[Array, "n half"], Float[Array, "n half"]]:
        """Shift and log scale of the other half."""
        shift, scale = jnp.split(mlp(params, f"flow.{index}", given, layers=3), 2, axis=-1)
        return shift, _LARGEST * jnp.tanh(scale / _LARGEST)


def _order(dim: int, index: int) -> np.ndarray:
    """The order of entries before a coupling, a fixed shuffle that any machine repeats.

    It is the order of SplitMix64's hashes (Steele, Lea, Flood, 2014), for weights on disk must
    find the same order in every version of NumPy.
    """
    x = np.arange(1, dim + 1, dtype=np.uint64) + np.uint64(dim * index)
    x = x * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.argsort(x ^ (x >> np.uint64(31)))
