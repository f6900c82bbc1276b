"""What the three stages of a generator's training minimise.

1. autoencoder: a variational autoencoder with a learned variance of pixels.
2. flow: the density of the latents of all images.
3. adversarial: the decoder with its refiner against a critic, on draws of the flow, which stays as
   it is: a flow that is tuned adversarially leaves the latents' region, and densities of low
   temperature find the images there.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ppl_cnn.inference.training.generators.critic import criticized
from ppl_cnn.models.generators.layers import LayerWeights
from ppl_cnn.models.generators.refined_flow import RefinedFlow, encode

type Images = Float[Array, "n row col channel"]

KL_STEPS = 1500
"""Steps over which the autoencoder's KL divergence gets its full weight."""
PENALTY = 0.01
"""gamma of R1, the critic's squared gradient at real images (Mescheder et al., 2018, arXiv
1801.04406)."""
LOW_PASS = 20.0
"""Weight of the squared error of reconstructions, both averaged over 2 x 2 pixels."""
FEATURES = 0.3
"""Weight of the squared error of reconstructions in the critic's features."""


def coarse(sizes: RefinedFlow, images: Images) -> Float[Array, "n low_row low_col channel"]:
    """Images averaged over blocks, to the size that encoder and decoder work at.

    Args:
        sizes: the generator's.
        images: of its image's shape.
    """
    factor = sizes.image_shape[0] // sizes.coarse_shape[0]
    return averaged(images, factor) if factor > 1 else images


def averaged(images: Images, side: int) -> Float[Array, "n low_row low_col channel"]:
    """The means of blocks of side x side pixels."""
    n, rows, cols, channels = images.shape
    blocks = images.reshape(n, rows // side, side, cols // side, side, channels)
    return blocks.mean(axis=(2, 4))


def encoded(
    sizes: RefinedFlow, params: LayerWeights, images: Images, key: PRNGKeyArray
) -> tuple[Float[Array, "n latent"], Float[Array, " n"]]:
    """A draw of each image's latent, and the KL divergence of its distribution from N(0, I).

    Args:
        sizes: the generator's.
        params: the encoder's weights.
        images: in 0..1, of the generator's shape.
        key: random key.
    """
    mean, log_variance = encode(sizes, params, coarse(sizes, images))
    drawn = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
    kl = (mean * mean + jnp.exp(log_variance) - 1 - log_variance).sum(axis=-1) / 2
    return drawn, kl


def autoencoder_loss(
    params: LayerWeights,
    images: Images,
    key: PRNGKeyArray,
    *,
    sizes: RefinedFlow,
    step: Array,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The negative evidence lower bound, with the best common variance of pixels.

        D/2 log(mean squared error) + KL,    D pixels

    Source: Kingma, Welling, Auto-encoding variational Bayes, 2014, arXiv 1312.6114; the variance:
    Rybkin et al., Simple and effective VAE training with calibrated decoders, 2021, arXiv
    2006.13202.

    Args:
        params: the weights of encoder and decoder.
        images: in 0..1.
        key: random key.
        sizes: the generator's.
        step: step of the stage, from 0.
    """
    u, kl = encoded(sizes, params, images, key)
    wanted = coarse(sizes, images)
    error = ((jax.nn.sigmoid(sizes.smooth(params, u)) - wanted) ** 2).mean()
    share = jnp.minimum(1.0, 0.1 + step / KL_STEPS)
    pixels = wanted[0].size
    loss = pixels / 2 * jnp.log(error) + share * kl.mean()
    return loss, {"squared_error": error, "kl": kl.mean()}


def flow_loss(
    params: LayerWeights, images: Images, key: PRNGKeyArray, *, sizes: RefinedFlow
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The negative log-density of a draw of each image's latent, in nats.

    Args:
        params: the weights of encoder and flow; the encoder's get no gradient.
        images: in 0..1.
        key: random key.
        sizes: the generator's.
    """
    u, _ = encoded(sizes, params, images, key)
    return -sizes.flow.log_prob(params, jax.lax.stop_gradient(u)).mean(), {}


def critic_loss(
    params: LayerWeights, real: Images, made: Images, *, penalty: float
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The logistic loss of telling real images from made ones, plus R1 on half of the real ones.

    Args:
        params: the critic's weights.
        real: real images, in 0..1.
        made: made ones.
        penalty: factor of R1; 0 leaves it out.
    """
    logits, _ = criticized(params, jnp.concatenate([real, made]))
    on_real, on_made = jnp.split(logits, 2)
    loss = jax.nn.softplus(-on_real).mean() + jax.nn.softplus(on_made).mean()
    told = {"critic_loss": loss}
    if penalty:
        half = real[: len(real) // 2]
        gradient = jax.grad(lambda x: criticized(params, x)[0].sum())(half)
        loss = loss + penalty / 2 * (gradient**2).sum(axis=(1, 2, 3)).mean()
    return loss, told


def refiner_loss(
    params: LayerWeights,
    critic: LayerWeights,
    real: Images,
    key: PRNGKeyArray,
    *,
    sizes: RefinedFlow,
    spread: Callable[[Array], Array],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """How well the critic tells draws of the generator, and how far reconstructions are off.

    The critic sees as many draws as real images. Half of the real ones are reconstructed, which
    keeps a latent's meaning: their errors count in pixels averaged over 2 x 2, and in the critic's
    features.

    Args:
        params: all the generator's weights, and the encoder's.
        critic: the critic's weights.
        real: real images, in 0..1.
        key: random key.
        sizes: the generator's.
        spread: lays rows out over the devices as those of `real` are.
    """
    key_z, key_u, key_noise = jax.random.split(key, 3)
    n, half = len(real), real[: len(real) // 2]
    z = spread(jax.random.normal(key_z, (n, sizes.latent)))
    drawn = sizes.flow.to_data(params, z)
    found, _ = encoded(sizes, params, half, key_u)
    u = jax.lax.stop_gradient(jnp.concatenate([drawn, found]))
    noise = spread(jax.random.normal(key_noise, (len(u), sizes.noise)))
    images = sizes.refined(params, u, noise)
    logits, features = criticized(critic, images)
    _, wanted = criticized(critic, half)
    low = ((averaged(images[n:], 2) - averaged(half, 2)) ** 2).mean()
    apart = ((features[n:] - wanted) ** 2).mean() / (wanted.var() + 1e-6)
    loss = jax.nn.softplus(-logits[:n]).mean() + LOW_PASS * low + FEATURES * apart
    return loss, {"squared_error": low, "features": apart}
