"""How like real images of its class a class's samples are."""

import numpy as np

from benchmarks.references.ten_classes import CLASSES
from ppl_cnn.inference.training.generators.figures import frechet_distance, precision_recall

MOST = 1000
"""Samples of a class, at most; Frechet distance, precision and recall depend on their number."""
_PAIRS = 2000


class Real:
    """The images that samples are compared with, class by class.

    Args:
        look: the judge.
        images: `Labelled`, none of which the judge was trained on.
    """

    def __init__(self, look, images):
        self.look, features = look, look(images.images).features
        self._features = [features[images.labels == number] for number in range(CLASSES)]
        self._spread = [_spread(images.of_class(number)) for number in range(CLASSES)]

    def likeness(self, number, images):
        """Figures of samples of a class.

            recognised: the share to which the judge gives this class
            frechet: squared Frechet distance to real images of the class, in the judge's features
            precision, recall: in the same features
            diversity: mean squared difference of two samples' pixels, over that of real images

        Args:
            number: the class.
            images: its samples (n, 28, 28, 1), uint8.
        """
        seen = self.look(images)
        precision, recall = precision_recall(seen.features, self._features[number])
        return {
            "recognised": float((seen.logits.argmax(axis=1) == number).mean()),
            "frechet": frechet_distance(seen.features, self._features[number]),
            "precision": precision,
            "recall": recall,
            "diversity": _spread(images) / self._spread[number],
        }

    def of_classes(self, samples):
        """`likeness` of all classes, a list for each figure; None for a class without samples.

        Args:
            samples: for each class its images, or None.
        """
        each = [
            None if images is None else self.likeness(number, images)
            for number, images in enumerate(samples)
        ]
        names: dict[str, float] = next((found for found in each if found), {})
        return {
            name: [None if found is None else round(found[name], 4) for found in each]
            for name in names
        }


def _spread(images):
    """The mean squared difference of two images, per pixel."""
    one, other = np.random.default_rng(0).integers(0, len(images), (2, _PAIRS))
    some = one != other
    pixels = images.astype(np.float32)
    return float(((pixels[one[some]] - pixels[other[some]]) ** 2).mean())


def as_seen(pixels):
    """Pixels as an image file has them: clipped to 0..255 and rounded."""
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)
