"""The gradient of a loss of the score matrix: exact in groups of images and over devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt8

from ppl_cnn.models.networks.declaration import Network
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.trained.cnn import preprocess

type Objective = Callable[[Float[Array, "n c"], Int[Array, " n"]], Float[Array, ""]]
"""(score matrix F, labels) -> loss."""


def gradient_of(
    params: Params,
    images: UInt8[Array, "n row col channel"],
    labels: Int[Array, " n"],
    keep: dict[str, Bool[Array, "n ..."]],
    *,
    network: Network,
    objective: Objective,
    mesh: Mesh,
    accumulate: int,
    dtype: str,
) -> tuple[Float[Array, ""], Float[Array, "n c"], Params]:
    """The loss of a global batch's score matrix F, F itself, and the loss's gradient.

    Any loss L that is a function of F has the gradient sum_i (dF_i/dparams)^T dL/dF_i. So each
    device computes the rows of F of its own images, and all rows are gathered on every device;
    there L and dL/dF are taken in float32; then each device pulls its rows of dL/dF back to the
    weights, and the devices' gradients are added. With `accumulate` > 1 a device does both in
    groups of images, and keeps the intermediate values of one group only: F first, then the groups
    once more, for a third more multiplications.

    Args:
        params: weights.
        images: photographs (0..255), spread over the mesh along n.
        labels: their classes.
        keep: dropout masks, from `dropout_masks`.
        network: the declaration.
        objective: L as a function of F and the labels.
        mesh: the devices.
        accumulate: groups that each device's images are divided into.
        dtype: number format of the network's arithmetic; weights, F, L and the sums of gradients
            over groups and devices are float32.
    """

    def score(params: Params, images: Array, keep: dict[str, Array]) -> Float[Array, "k c"]:
        x = preprocess(images, network.preprocessing, network.image_shape).astype(dtype)
        cast = jax.tree.map(lambda weight: weight.astype(dtype), params)
        return scores(network, cast, x, keep=keep).astype(jnp.float32)

    def of_device(params: Params, images: Array, labels: Array, keep: dict[str, Array]) -> Any:
        own, pull_back = scores_and_vjp(score, params, (images, keep), groups=accumulate)
        F, all_labels = lax.all_gather((own, labels), "data", tiled=True)
        loss, cotangent = jax.value_and_grad(objective)(F, all_labels)
        first = lax.axis_index("data") * len(own)
        gradient = pull_back(lax.dynamic_slice_in_dim(cotangent, first, len(own)))
        return loss, F, lax.psum(gradient, "data")

    rows, whole = PartitionSpec("data"), PartitionSpec()
    found: tuple[Array, Array, Params] = jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(whole, rows, rows, rows),
        out_specs=whole,
        check_vma=False,  # all_gather's result is the same on all devices; types don't know it
    )(params, images, labels, keep)
    return found


def scores_and_vjp(
    score: Callable[..., Float[Array, "k c"]], params: Params, batch: Any, *, groups: int
) -> tuple[Float[Array, "n c"], Callable[[Float[Array, "n c"]], Params]]:
    """F = score(params, *batch) and the map from dL/dF to dL/dparams, in groups of rows.

    Args:
        score: function of weights and batch to the score matrix, for any number of images.
        params: weights.
        batch: further arguments of `score`: arrays with the images along their first axis.
        groups: number of groups. One keeps all intermediate values for the way back; more compute
            them again, group by group.
    """
    if groups == 1:
        F, vjp = jax.vjp(lambda params: score(params, *batch), params)
        return F, lambda cotangent: vjp(cotangent)[0]

    def cut(x: Array) -> Array:
        return x.reshape(groups, len(x) // groups, *x.shape[1:])

    parts = jax.tree.map(cut, batch)
    F = lax.map(lambda part: score(params, *part), parts)

    def pull_back(cotangent: Float[Array, "n c"]) -> Params:
        def add(total: Params, part: Any) -> tuple[Params, None]:
            inputs, rows = part
            _, vjp = jax.vjp(lambda params: score(params, *inputs), params)
            return jax.tree.map(jnp.add, total, vjp(rows)[0]), None

        nothing = jax.tree.map(jnp.zeros_like, params)
        total: Params = lax.scan(add, nothing, (parts, cut(cotangent)))[0]
        return total

    return F.reshape(-1, F.shape[-1]), pull_back
