"""Generators of one's own, as a user would write them: `--reference own_generator:generator`."""

import jax
import jax.numpy as jnp
from flax import nnx


class Decoder(nnx.Module):
    """Six normal numbers to a 12 x 12 grey image."""

    latent_shape = (6,)

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(6, 6 * 6 * 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.conv = nnx.Conv(4, 1, (3, 3), rngs=rngs)

    def __call__(self, z: jax.Array) -> jax.Array:
        maps = nnx.relu(self.norm(self.dense(z).reshape(6, 6, 4)))
        maps = jax.image.resize(self.dropout(maps), (12, 12, 4), "nearest")
        return 255 * nnx.sigmoid(self.conv(maps))


def generator() -> Decoder:
    return Decoder(nnx.Rngs(0))


ready = Decoder(nnx.Rngs(1))


def waves(z: jax.Array) -> jax.Array:
    """A function of a 2 x 3 latent to a colour image."""
    x = jnp.linspace(0.0, 3.0, 10)[:, None, None]
    y = jnp.linspace(0.0, 3.0, 12)[None, :, None]
    return 128 + 60 * jnp.sin(x * z[0][None, None, :] + y * z[1][None, None, :])


waves.latent_shape = (2, 3)
