"""The target that suits a network, by how it was trained: what `target="auto"` stands for."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ppl_cnn.models.units.targets import Logit, LogProb, Target


class SuitedTarget(NamedTuple):
    """The target of a network's classes, and why it suits them."""

    target: Target
    reason: str
    """A subordinate clause that begins with "since"."""

    def __str__(self) -> str:
        return f"target: {self.target}, {self.reason}"


def suited_target(objective: str | None) -> SuitedTarget:
    """The target whose density at T = 1 is the one that the training fitted.

    Let q be the distribution of the training images. Each objective has its minimum at a score f
    that is known up to what the objective doesn't see:

        generative      f_y(x) = log q(x|y) - log q(x) + c_y, as a softmax over images cancels c_y.
                        So exp(f_y) q is q(x|y), normalised, and f_y itself is the target.
        discriminative  f_y(x) = log p(y|x) + b(x), as a softmax over classes cancels b. So f_y
                        leaves exp(f_y) q open, but by Bayes p(y|x) q(x) is q(x|y), normalised: the
                        target is log p(y|x).
        hybrid          both at once. Log p(y|x) and log q(x|y) - log q(x) differ by log p(y) alone,
                        so that one f minimises both losses. The generative one, however small its
                        share, leaves b no freedom: f_y itself is the target.

    The last stage decides, since it moves f away from what an earlier one has fitted: a
    discriminative stage lets b drift.

    Args:
        objective: that of the last stage of the training: generative, hybrid:LAMBDA or
            discriminative. None, if nothing is recorded, counts as discriminative, as nearly all
            classifiers are trained so.

    Examples:
        >>> print(suited_target("generative"))
        target: logit, since the last stage of its training was generative
    """
    if objective is None:
        return SuitedTarget(
            LogProb(),
            "since nothing is recorded of the network's training, which is assumed to have been "
            "discriminative",
        )
    target = LogProb() if objective == "discriminative" else Logit()
    return SuitedTarget(target, f"since the last stage of its training was {objective}")


_LAST_STAGE = re.compile(r"(?:.*,)?\s*(generative|discriminative|hybrid:[^:,]+):[^,]*", re.DOTALL)


def last_objective(description: Mapping[str, Any]) -> str | None:
    """The objective of the last stage of the training that a `model.json` records.

    Args:
        description: the file's content; its recipe's stages are read as
            "generative:8,discriminative:12@0.003".

    Returns:
        Such as "generative" or "hybrid:0.5"; None if the file records no such stages, as that of an
        imported network.

    Examples:
        >>> last_objective({"recipe": {"stages": "generative:8,hybrid:0.5:4epochs@0.01"}})
        'hybrid:0.5'
    """
    recipe = description.get("recipe")
    stages = recipe.get("stages") if isinstance(recipe, dict) else None
    found = _LAST_STAGE.fullmatch(stages) if isinstance(stages, str) else None
    return found[1] if found else None
