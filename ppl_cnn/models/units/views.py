"""A unit's score averaged over fixed views of the image: warped, and with noise added.

What a network sees in one view only, such as an adversarial pattern of pixels, averages out. The
views are a part of the density. They are drawn once, and all machines have the same ones.
"""

from collections.abc import Hashable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.networks.graph import Params
from ppl_cnn.models.units.score_function import Image, OfUnit, Scored
from ppl_cnn.models.units.warps import Warp, taps_of, traced_warp, warped, warped_by
from ppl_cnn.numeric import plain_fields, real


@dataclass(frozen=True)
class Averaged(OfUnit):
    """A unit whose score is averaged over fixed random warps of its image.

        f(x) = 1/K sum_k f_unit(W_k x + sigma n_k)

    The warps W_k are `Warp.drawn`: up to 25 degrees, 0.45 to 2 times, 30 % of the image, every
    second one mirrored; n_k is standard normal noise. A class's target is taken of each view
    before the mean. A filter's receptive field is warped, not the whole image.

    Source of the noise: Cohen, Rosenfeld, Kolter, Certified adversarial robustness via randomized
    smoothing, ICML 2019.

    Args:
        unit: a unit of a network, or a `ScoreFunction`.
        warps: K, at least 2.
        smooth: sigma, in pixel units; 0 for no noise.
        seed: the seed of warps and noise.

    Raises:
        ArgumentError: there are fewer than 2 warps, or sigma is negative or not finite.

    Examples:
        >>> import jax.numpy as jnp
        >>> from ppl_cnn.models.units.score_function import ScoreFunction
        >>> brightness = ScoreFunction(jnp.mean, (8, 8, 3))
        >>> views = Averaged(brightness, warps=4)
        >>> round(float(views.score(views.params, jnp.ones(views.shape))), 3)
        1.0
    """

    unit: Scored
    warps: int
    smooth: float = 0.0
    _: KW_ONLY
    seed: int = 0

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.warps < 2:
            raise ArgumentError(
                f"`warps` must be at least 2 for an average, not {self.warps}.", argument="warps"
            )
        if not 0 <= real("smooth", self.smooth) < float("inf"):
            raise ArgumentError(
                f"`smooth`, the noise's sigma, must be finite and at least 0, not {self.smooth}.",
                argument="smooth",
            )

    @property
    def params(self) -> Params:
        """The unit's weights and, under `views`, the taps and the noise of the views."""
        views = _views(self.shape, self.warps, self.smooth, self.seed)
        return {**self.unit.params, "views": views}

    @property
    def program(self) -> Hashable:
        """The unit's program, and what the views are drawn from."""
        return self.unit.program, self.warps, self.smooth, self.seed

    @property
    def settings(self) -> dict[str, Any]:
        """The unit's settings, and those of the views."""
        views = {"warps": self.warps, "smooth": self.smooth, "views_seed": self.seed}
        return {**self.unit.settings, **views}

    def score(self, params: Params, image: Image) -> Float[Array, ""]:
        """The score f(image): the mean of the unit's scores of all views."""
        views = warped(image, params["views"])
        if self.smooth:
            views = views + params["views"]["noise"]
        return jnp.mean(jax.vmap(partial(self.unit.score, params))(views))

    def glimpse(self, params: Params, image: Image, key: Array) -> Float[Array, ""]:
        """The unit's score of one new random view.

        Its mean over keys is the limit of f as the number of warps grows. An ascent with a new
        key at each step doesn't overfit the few fixed warps.
        """
        key_warp, key_noise = jax.random.split(key)
        view = warped_by(image, *traced_warp(key_warp))
        if self.smooth:
            view = view + self.smooth * jax.random.normal(key_noise, view.shape)
        return self.unit.score(params, view)


@lru_cache(32)
def _views(
    shape: tuple[int, int, int], warps: int, smooth: float, seed: int
) -> Mapping[str, Array]:
    """The taps and noise of the views; the same arrays for all units of that shape."""
    # It may be asked for first in a function that is being traced.
    with jax.ensure_compile_time_eval():
        views = taps_of(Warp.drawn(warps, seed), *shape[:2])
        if smooth:
            noise = np.random.default_rng(seed).standard_normal((warps, *shape))
            noise = np.round(noise * 2.0**10) / 2.0**10
            views["noise"] = jnp.asarray(smooth * noise, jnp.float32)
        return views


def averaged(unit: Scored, warps: int, smooth: float = 0.0) -> Scored:
    """The unit averaged over that many warps; the unit itself for 0 or 1.

    Raises:
        ArgumentError: noise is given without warps, or a number is out of its range.
    """
    if warps < 0:
        raise ArgumentError(f"`warps` must be at least 0, not {warps}.", argument="warps")
    if warps > 1:
        return Averaged(unit, warps, smooth)
    if smooth:
        raise ArgumentError(
            f"`smooth={smooth:g}` adds noise to the views of warps. Give `warps=2` or more.",
            argument="smooth",
        )
    return unit
