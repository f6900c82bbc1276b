"""Weights that PyTorch stores in factors, put together as its modules compute them.

Sources: torch.nn.utils' weight_norm, spectral_norm, prune and parametrizations.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ppl_cnn.errors import FileError
from ppl_cnn.models.formats.names import shown

_PARAMETRIZED = ".parametrizations."


def folded(tensors: Mapping[str, np.ndarray], source: Path) -> dict[str, np.ndarray]:
    """The tensors with one weight in place of its factors; all others as they are.

        weight_norm     weight_g, weight_v               g v / |v|, with a norm for each entry of g
        spectral_norm   weight_orig, weight_u, weight_v  weight / (u' weight v)
        prune           weight_orig, weight_mask         weight * mask

    and what `torch.nn.utils.parametrizations` names parametrizations.weight.original0 and so on.
    Biases may be stored so too.

    Args:
        tensors: name -> array.
        source: the file, for error messages.

    Raises:
        FileError: factors don't fit each other.
    """
    left = dict(tensors)
    for name in tensors:
        for names_of, product in _FOLDS:
            weight, *parts = names_of(name)
            if parts and all(part in left for part in parts):
                factors = [left.pop(part).astype(np.float32) for part in parts]
                with np.errstate(all="ignore"):  # what isn't finite is refused later
                    found = product(*factors)
                if found is None:
                    raise FileError(
                        f"{source}: the factors of {shown(weight)} don't fit each other.",
                        path=source,
                    )
                left[weight] = found
    return left


def _own(name: str) -> str:
    """The name of the weight that a parametrization's tensor belongs to."""
    layer, _, rest = name.partition(_PARAMETRIZED)
    return f"{layer}.{rest.partition('.')[0]}"


# The names of a weight and of its factors, given the last factor's name; only the weight's if the
# name is no such factor's.


def _normalized(name: str) -> tuple[str, ...]:
    if _PARAMETRIZED in name and name.endswith(".original1"):
        return _own(name), f"{name.removesuffix('1')}0", name
    own = name.removesuffix("_v")
    return (own, f"{own}_g", name) if own != name else (name,)


def _spectral(name: str) -> tuple[str, ...]:
    if _PARAMETRIZED in name and name.endswith("._v"):
        place = name.removesuffix("._v")
        return _own(name), f"{place.rpartition('.')[0]}.original", f"{place}._u", name
    own = name.removesuffix("_v")
    return (own, f"{own}_orig", f"{own}_u", name) if own != name else (name,)


def _pruned(name: str) -> tuple[str, ...]:
    own = name.removesuffix("_mask")
    return (own, f"{own}_orig", name) if own != name else (name,)


# The weight that factors stand for; None if they don't fit each other.


def _of_norm(lengths: np.ndarray, directions: np.ndarray) -> np.ndarray | None:
    if not lengths.ndim:  # one length for the whole weight
        return np.asarray(directions * (lengths / np.sqrt(np.square(directions).sum())))
    axes = tuple(axis for axis, size in enumerate(lengths.shape) if size == 1)
    if lengths.ndim != directions.ndim:
        return None
    norms = np.sqrt(np.square(directions).sum(axis=axes, keepdims=True))
    return directions * (lengths / norms) if norms.shape == lengths.shape else None


def _of_spectrum(weight: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray | None:
    if u.shape != weight.shape[:1] or v.shape != (weight.size // max(len(u), 1),):
        return None
    return np.asarray(weight / (u @ weight.reshape(len(u), -1) @ v))


def _of_mask(weight: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    return weight * mask if weight.shape == mask.shape else None


_FOLDS = ((_normalized, _of_norm), (_spectral, _of_spectrum), (_pruned, _of_mask))
