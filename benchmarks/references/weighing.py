"""Class samples by importance weights of a reference's draws: forward passes, no chain."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numpy as np

from benchmarks.references.likeness import MOST, as_seen
from benchmarks.references.study import Study
from benchmarks.references.ten_classes import CLASSES
from benchmarks.references.unrefined import UNREFINED
from ppl_cnn.inference.importance import Weights
from ppl_cnn.inference.sampling.resampling.run import FEWEST_EFFECTIVE, proposals_of
from ppl_cnn.inference.sampling.resampling.scorer import Scorer
from ppl_cnn.inference.sampling.resampling.settings import Resample, Resampling
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.models.empirical_density import EmpiricalDensity
from ppl_cnn.models.references.empirical import Empirical

PROPOSALS = 20_000
"""Draws of a reference; of the images of a data set, all."""


@dataclass(frozen=True)
class Weighed:
    """A network's classes under a reference at a temperature."""

    network: str
    target: str
    reference: str
    strength: float
    """1/T."""
    proposals: int = PROPOSALS

    @property
    def name(self):
        """The name of its line."""
        parts = ("weights", self.reference, self.network, self.target, f"{self.strength:g}")
        return "-".join(parts).replace(":", "_")

    def measured(self, study: Study):
        """Its line, a value for each class.

        ess: effective number of the weights
        log_z: with its standard error, in log_z_error
        expected: log Z as the network's training implies it: log rho - alpha
        recognised and the rest: of 1,000 draws (`likeness.Real`), where ess is at least 50
        """
        tilted, scorer = _scored(study, replace(self, strength=1.0))
        weights = [Weights(self.strength * each) for each in tilted]
        estimates = [each.log_z for each in weights]
        line = {
            **asdict(self),
            "method": "weights",
            "proposals": tilted.shape[1],
            "ess": [round(each.effective, 1) for each in weights],
            "log_z": [round(each.value, 4) for each in estimates],
            "log_z_error": [round(each.error, 4) for each in estimates],
        }
        if self.strength == 1:
            line["expected"] = self._expected(study)
        samples = [self._samples(number, each, scorer) for number, each in enumerate(weights)]
        if not any(images is None for images in samples):
            np.savez_compressed(study.folder / f"{self.name}.npz", images=np.stack(samples))
        return {**line, **study.real.of_classes(samples)}

    def _expected(self, study):
        """Log Z under the distribution of real images, if the network has learned it.

        For the score of a generatively trained network, training says so itself: alpha = log rho -
        log Z. For log p(y|x), Z is the mean probability of a class, its share rho.
        """
        if self.target == "log-prob":
            return [round(float(-np.log(CLASSES)), 4)] * CLASSES
        alpha = np.asarray(study.alpha(self.network), np.float64)
        return (-np.log(CLASSES) - alpha).round(4).tolist()

    def _samples(self, number, weights, scorer):
        """Draws of a class, resampled; None if too few weights are effective."""
        if weights.effective < FEWEST_EFFECTIVE and self.reference != "data":
            return None
        uniforms = np.random.default_rng(number).random(MOST)
        return scorer(weights.resampled(uniforms))


@lru_cache(1)
def _scored(study, case):
    """f of all classes for all proposals (class, proposal), and what makes proposals' images."""
    reference = study.reference(case.reference)
    kind = EmpiricalDensity if isinstance(reference, Empirical) else TiltedDensity
    densities = [kind(unit, reference) for unit in study.units(case.network, case.target)]
    proposals = proposals_of(densities[0], Resampling(kernel=Resample(case.proposals)))
    scorer = Scorer(densities, proposals)
    mean = np.asarray(densities[0].unit.preprocessing.mean, np.float32)
    scores = scorer.weighed(progress=False).tilts
    return scores, lambda numbers: as_seen(scorer.images(numbers) + mean)


STRENGTHS = (1 / 3, 1.0, 3.0)
SUITED = {
    "generative": "logit",
    "hybrid": "logit",
    "discriminative": "log-prob",
    "alexnet-fashion": "log-prob",
}
"""Network -> the target whose density at T = 1 its training has fitted."""
REFERENCES = ("generator", "data", *UNREFINED, "white:10", "gaussian", "bounded:spectral")


def all_cases() -> Iterator[Weighed]:
    """The table's, in its order."""
    for reference in REFERENCES:
        for network, target in SUITED.items():
            for strength in STRENGTHS:
                yield Weighed(network, target, reference, strength)
    for reference in ("data", "generator"):
        for network in ("discriminative", "alexnet-fashion"):
            yield Weighed(network, "logit", reference, 1.0)


def toy_cases() -> Iterator[Weighed]:
    """Some that take a second each."""
    for reference in ("white:10", "data", *UNREFINED):
        yield Weighed("generative", "logit", reference, 1.0, 100)
