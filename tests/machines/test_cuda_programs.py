"""The package's programs compiled for described GPUs: `make test-cuda-compile`, minutes."""

import importlib.util

import pytest

import ppl_cnn
from ppl_cnn.inference.sampling.program import Program
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.training.dry_run import dry_run
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.machines.arithmetic import IN_ORDER, products
from ppl_cnn.machines.compiled import Program as Compiled
from ppl_cnn.machines.described import Machine
from ppl_cnn.models.networks.catalogue import ALEXNET
from ppl_cnn.models.trained.cnn import CNN

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("jax_plugins") is None
        or importlib.util.find_spec("jax_plugins.xla_cuda12") is None,
        reason="JAX's CUDA plugin is not installed",
    ),
]


def compiled(chains, machine="h200", deterministic=False):
    density = ppl_cnn.TiltedDensity(CNN.random(ALEXNET).unit("conv5:12"), ppl_cnn.WhiteNoise(10.0))
    devices = Machine.parse(machine).devices()
    with products("highest", "gpu"):
        lowered = Program([density], Sampling(chains=chains), devices=devices).lowered()
    options = {IN_ORDER: True} if deterministic else {}
    return Compiled.of(lowered.compile(compiler_options=options), "gpu")


def test_a_leapfrog_of_8_chains_launches_few_operations_and_nothing_slow():
    program = compiled(8)
    assert not program.unwanted
    assert not program.disordered
    assert program.launches(program.innermost) <= 47
    # The whole block is one loop: little stands around it.
    loops = [line for line in program.computations["ENTRY"] if line.kind == "while"]
    assert len(loops) == 1


def test_64_chains_need_little_memory_even_to_the_same_bits():
    program = compiled(64, deterministic=True)
    assert program.memory.temporaries < 350 * 2**20
    assert not program.unwanted
    assert not program.disordered


@pytest.mark.parametrize("machine", ["h100:1", "h100:8", "h100:2x8"])
def test_a_training_step_has_nothing_slow_and_few_collectives(machine):
    recipe = Recipe.read("lenet", batch_size=128)
    said = dry_run(recipe, Execution(deterministic=True), Machine.parse(machine))
    assert "slow on a GPU" not in said
    assert "what differs from run to run: nothing" in said
    if machine == "h100:1":
        assert "collectives: none" in said
    else:
        assert "all-reduce" in said
