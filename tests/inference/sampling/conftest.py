"""What the tests of sampling share."""

from functools import cached_property

import jax
import pytest

from ppl_cnn.inference.sampling.program import Program


class Once:
    """A lowered program that is compiled once, however often that is asked for."""

    def __init__(self, lowered):
        self._lowered = lowered

    def __getattr__(self, name):
        return getattr(self._lowered, name)

    @cached_property
    def _executable(self):
        return self._lowered.compile()

    def compile(self, **options):
        return self._lowered.compile(**options) if options else self._executable


def determines(program):
    """All that the text of a program depends on; weights, seed and thinning are arguments."""
    density, sampling, placement = program.densities[0], program._sampling, program.placement
    return (
        *(density.unit.program, density.reference, density.temperature, len(program.densities)),
        *(type(program.kernel), str(program.kernel), program.block, program.chains_of(1)),
        *(sampling.warmup, sampling.acceptance, jax.config.jax_enable_x64),
        *(placement.mesh, placement.at_once, str(placement.specs), str(program.chains)),
    )


@pytest.fixture(autouse=True, scope="module")
def _programs_are_compiled_once():
    """Runs of one density in a file share their program, which takes most of a short run."""
    lowered, known = Program.lowered, {}

    def once(program):
        key = determines(program)
        if key not in known:
            known[key] = Once(lowered(program))
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Program, "lowered", once)
        yield
