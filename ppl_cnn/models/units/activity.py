"""How often the units of a network respond at all, which shows the dead ones before sampling."""

from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.forward import scaled
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.networks.slab import Slab
from ppl_cnn.models.units.listing import nonlinearities


def activity(
    network: Network, params: Params, batches: Iterable[Float[Array, "_ row col channel"]]
) -> dict[str, Float[np.ndarray, " _"]]:
    """Each channel's share of non-zero responses after the nonlinearity.

    A channel whose share is 0 is dead on these images: its responses have no gradient there.

    Args:
        network: the declaration.
        params: all weights of the network.
        batches: batches of images, in pixel units minus the mean; at least one image.

    Returns:
        Layer name -> share of each channel, over all images and over the places of the layer's
        map that later layers read. Layers that no ReLU follows are left out.
    """
    counts: dict[str, np.ndarray] = {}
    responses: dict[str, int] = {}
    for batch in batches:
        for name, (count, total) in _active(network, params, batch).items():
            counts[name] = counts.get(name, 0) + np.asarray(count, np.int64)
            responses[name] = responses.get(name, 0) + int(total)
    return {name: (counts[name] / responses[name]).astype(np.float32) for name in counts}


@partial(jax.jit, static_argnums=0)
def _active(
    network: Network, params: Params, x: Float[Array, "n row col channel"]
) -> dict[str, tuple[Array, int]]:
    """Layer name -> each channel's number of non-zero responses, and of all responses."""
    whole = Slab.whole(network)
    responses = whole.responses(params, scaled(network.preprocessing, whole.crop(x)))
    active = {}
    for name, after in nonlinearities(network).items():
        response = responses[after]
        each = tuple(range(response.ndim - 1))
        active[name] = jnp.sum(response != 0, each), response.size // response.shape[-1]
    return active
