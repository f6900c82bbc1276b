"""Random weights for a declared network."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.graph import weight_shapes


def he_normal(network: Network, key: PRNGKeyArray) -> dict[str, dict[str, Array]]:
    """Random weights, layer name -> weight name -> array: kernels N(0, 2/fan_in), biases 0.

    The last layer's kernel is N(0, 0.01^2), as in Caffe's AlexNet. Scores then start near zero,
    where both objectives have their gentlest gradients. Batch normalizations start as the identity:
    scale 1, shift 0.

    Source: He, Zhang, Ren, Sun, Delving deep into rectifiers, ICCV 2015.
    """
    params: dict[str, dict[str, Array]] = {}
    for index, (name, wanted) in enumerate(weight_shapes(network).items()):
        params[name] = {}
        for weight, shape in wanted.items():
            if weight == "kernel":
                last = name == [*weight_shapes(network)][-1]
                deviation = 0.01 if last else math.sqrt(2 / math.prod(shape[:-1]))
                normal = jax.random.normal(jax.random.fold_in(key, index), shape, jnp.float32)
                params[name][weight] = deviation * normal
            else:
                value = float(weight == "scale")
                params[name][weight] = jnp.full(shape, value, jnp.float32)
    return params
