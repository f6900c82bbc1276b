"""What a checkpoint's wrapper does to pixels, beside what the network is declared to see."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ppl_cnn.models.networks.declaration import Network

_CONSTANT = re.compile(r"(?:.*\.)?\w*normali[sz]\w*\.(?:new_)?(mean|std)")
"""Names of the constants of a module that normalises images, as of robustness' InputNormalize."""
_TOLERANCE = 0.5
"""How far means and deviations, in grey levels, may differ by rounding."""


def warn_of_other_pixels(tensors: Mapping[str, np.ndarray], network: Network, source: Path) -> None:
    """Logs a warning if a file's wrapper normalises pixels otherwise than is declared.

    Args:
        tensors: name -> array, of the whole file.
        network: the network that the file is opened as.
        source: the file, for the message.
    """
    stored = {
        found[1]: array.astype(np.float64).ravel()
        for name, array in tensors.items()
        if (found := _CONSTANT.fullmatch(name)) and array.dtype.kind == "f"
    }
    seen = network.preprocessing
    if [each.size for each in stored.values()] != [len(seen.mean)] * 2:
        return
    # Pixels are from 0 to 1 in nearly all such wrappers.
    largest = 255 if stored["mean"].max() <= 1 else 1
    mean, deviation = largest * stored["mean"], largest * stored["std"]
    order = slice(None, None, -1 if seen.order == "BGR" else 1)
    declared = seen.mean[order], tuple(1 / scale for scale in seen.scale[order])
    if np.allclose(declared, (mean, deviation), rtol=0, atol=_TOLERANCE):
        return
    means = ",".join(f"{value:.6g}" for value in mean)
    scales = ",".join(f"1/{value:.6g}" for value in deviation)
    logging.getLogger("ppl_cnn").warning(
        "%s normalises pixels otherwise than %s is declared to. What its wrapper does is "
        "pixels='mean=%s scale=%s order=%s'.",
        *(source, network.name, means, scales, "RGB" if len(mean) == 3 else "grey"),
    )
