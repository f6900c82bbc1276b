"""Whether a generator draws each class as often as the images have it: shares, and log Z."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from ppl_cnn.data import ImageSplit
from ppl_cnn.inference.importance import mean_weight
from ppl_cnn.inference.training.generators.figures import Judge, draws_of, first_images
from ppl_cnn.models.trained.suited_target import suited_target
from ppl_cnn.models.units.targets import LogProb


class ClassFigures(NamedTuple):
    """A line for each class of the judge, for draws and for real images."""

    classes: list[str]
    """The classes' names, or their numbers."""
    target: str
    """The target f that suits the judge, by whose T = 1 density log Z is meant."""
    share: list[float]
    """The share of the draws that the judge names so."""
    real_share: list[float]
    log_z: list[float]
    """log Z = log mean exp f over the draws."""
    log_z_error: list[float]
    """One standard error."""
    real_log_z: list[float]
    """log Z under real images; of a generatively trained judge this is log rho - alpha."""
    real_log_z_error: list[float]


def class_figures(
    apply: Callable[[PyTree, Array], Array],
    params: PyTree,
    judge: Judge,
    *,
    latent_shape: tuple[int, ...],
    images: ImageSplit,
    count: int,
    seed: int = 0,
) -> ClassFigures:
    """Compares the classes of a generator's draws with those of real images.

    Args:
        apply: G, as `Generator.apply`.
        params: its weights.
        judge: names the classes.
        latent_shape: the shape of z.
        images: the real images, of which the first are taken.
        count: number of draws, and most real images.
        seed: of the draws.
    """
    target = suited_target(judge.network.objective).target
    drawn = draws_of(apply, params, latent_shape=latent_shape, count=count, seed=seed)
    real = first_images(images, count, judge.network.image_shape)
    share, log_z, error = _of(judge.look(drawn).logits, judge, isinstance(target, LogProb))
    theirs = _of(judge.look(real).logits, judge, isinstance(target, LogProb))
    names = judge.network.classes or tuple(map(str, range(len(share))))
    return ClassFigures(list(names), str(target), share, theirs[0], log_z, error, *theirs[1:])


def _of(
    logits: Float[np.ndarray, "n class"], judge: Judge, posterior: bool
) -> tuple[list[float], list[float], list[float]]:
    """The classes' shares among images, log Z and its standard error."""
    named = np.bincount(logits.argmax(axis=1), minlength=logits.shape[1]) / len(logits)
    alpha = np.asarray(judge.network.alpha[...])[None]
    targets: Any = jax.nn.log_softmax(logits, axis=1) if posterior else logits - alpha
    estimates = [mean_weight(each)[0] for each in np.asarray(targets, np.float64).T]
    return (
        named.tolist(),
        [estimate.value for estimate in estimates],
        [estimate.error for estimate in estimates],
    )
