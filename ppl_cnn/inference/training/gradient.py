"""The gradient of a loss of the score matrix: exact in groups of images and over devices."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8

from ppl_cnn.inference.training.networks.trainable import Averages, Trainable
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.trained.cnn import preprocess

type Objective = Callable[[Float[Array, "n c"], Int[Array, " n"]], Float[Array, ""]]
"""(score matrix F, labels) -> loss."""


type Batch = tuple[UInt8[Array, "n row col channel"], Int[Array, " n"], Any]
"""Photographs (0..255), their classes, and the network's noise for each of them."""


class GradientOf(NamedTuple):
    """What a step takes from a global batch."""

    loss: Float[Array, ""]
    F: Float[Array, "n c"]
    """The score matrix."""
    gradient: Params
    """The loss's gradient, float32."""
    averages: Averages
    """What the network's averages become."""


def gradient_of(
    params: Params,
    averages: Averages,
    batch: Batch,
    *,
    network: Trainable,
    objective: Objective,
    mesh: Mesh,
    accumulate: int,
    dtype: str,
) -> GradientOf:
    """The loss of a global batch's score matrix F, F itself, and the loss's gradient.

    Any loss L that is a function of F has the gradient sum_i (dF_i/dparams)^T dL/dF_i. So each
    device computes the rows of F of its own images, and all rows are gathered on every device;
    there L and dL/dF are taken in float32; then each device pulls its rows of dL/dF back to the
    weights, and the devices' gradients are added. With `accumulate` > 1 a device does both in
    groups of images, and keeps the intermediate values of one group only: F first, then the groups
    once more, for a third more multiplications. Rows of F may depend on the other images of their
    group, as under BatchNorm.

    Args:
        params: weights.
        averages: what the network's forward pass changes besides.
        batch: spread over the mesh along its images.
        network: gives F in training mode.
        objective: L as a function of F and the labels.
        mesh: the devices.
        accumulate: groups that each device's images are divided into.
        dtype: number format of the network's arithmetic; weights, F, L and the sums of gradients
            over groups and devices are float32.
    """

    def score(
        params: Params, images: Array, noise: Any, averages: Averages
    ) -> tuple[Float[Array, "k c"], Averages]:
        x = preprocess(images, network.preprocessing, network.image_shape).astype(dtype)
        cast = jax.tree.map(lambda weight: weight.astype(dtype), params)
        F, after = network.train_scores(cast, averages, x, noise)
        return F.astype(jnp.float32), after

    def of_device(params: Params, averages: Averages, batch: Any) -> GradientOf:
        images, labels, noise = batch
        own, pull_back, after = scores_and_vjp(
            partial(score, averages=averages), params, (images, noise), groups=accumulate
        )
        F, all_labels = lax.all_gather((own, labels), "data", tiled=True)
        loss, cotangent = jax.value_and_grad(objective)(F, all_labels)
        first = lax.axis_index("data") * len(own)
        gradient = pull_back(lax.dynamic_slice_in_dim(cotangent, first, len(own)))
        if mesh.size > 1:  # the sum over one device would be a copy on CPU
            gradient = lax.psum(gradient, "data")
        everywhere = jax.tree.map(_common, lax.all_gather(after, "data"))
        return GradientOf(loss, F, gradient, everywhere)

    rows, whole = PartitionSpec("data"), PartitionSpec()
    found: GradientOf = jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(whole, whole, rows),
        out_specs=whole,
        check_vma=False,  # all_gather's result is the same on all devices; types don't know it
    )(params, averages, batch)
    return found


def scores_and_vjp(
    score: Callable[..., tuple[Float[Array, "k c"], Averages]],
    params: Params,
    batch: Any,
    *,
    groups: int,
) -> tuple[Float[Array, "n c"], Callable[[Float[Array, "n c"]], Params], Averages]:
    """F, the map from dL/dF to dL/dparams, and the averages, in groups of rows.

    Args:
        score: (params, *batch) -> (F, averages), for any number of images.
        params: weights.
        batch: further arguments of `score`: arrays with the images along their first axis.
        groups: number of groups. One keeps all intermediate values for the way back; more compute
            them again, group by group.
    """
    if groups == 1:
        F, vjp, after = jax.vjp(lambda params: score(params, *batch), params, has_aux=True)
        return F, lambda cotangent: vjp(cotangent)[0], after

    def cut(x: Array) -> Array:
        return x.reshape(groups, len(x) // groups, *x.shape[1:])

    parts = jax.tree.map(cut, batch)
    F, after = lax.map(lambda part: score(params, *part), parts)

    def pull_back(cotangent: Float[Array, "n c"]) -> Params:
        def add(total: Params, part: Any) -> tuple[Params, None]:
            inputs, rows = part
            _, vjp, _ = jax.vjp(lambda params: score(params, *inputs), params, has_aux=True)
            return jax.tree.map(jnp.add, total, vjp(rows)[0]), None

        nothing = jax.tree.map(jnp.zeros_like, params)
        total: Params = lax.scan(add, nothing, (parts, cut(cotangent)))[0]
        return total

    return F.reshape(-1, F.shape[-1]), pull_back, jax.tree.map(_common, after)


def _common(parts: Array) -> Array:
    """What the parts of a batch, along the first axis, leave of a state."""
    return jnp.mean(parts, axis=0) if jnp.issubdtype(parts.dtype, jnp.floating) else parts[0]
