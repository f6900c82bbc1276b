import pytest

import ppl_cnn
from ppl_cnn.errors import ArgumentError
from ppl_cnn.inference.sampling.dry_run import dry_run
from ppl_cnn.inference.sampling.methods import method_for, settings_for
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.machines.described import Machine

UNITS = ppl_cnn.load("alexnet-fashion").units("conv1:0-1")
DENSITIES = [ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0)) for unit in UNITS]


def test_it_says_what_each_group_of_units_needs():
    said = dry_run(DENSITIES, Sampling(chains=2), side_by_side=1)
    assert "split, 2 chains of each unit; " in said
    assert said.count("memory per device: ") == 2
    assert said.count("a block: 50 draws per chain") == 2
    assert "operations in the innermost loop: " in said
    assert "differs from run to run" not in said


def test_what_has_no_program_of_chains_is_refused(refused):
    method = method_for(DENSITIES[0], "resample:100")
    settings = settings_for(
        method, chains=2, warmup=2, thin=1, target_accept=None, seed=0, start=Sampling().start
    )
    with refused("`dry_run`", "resample", kind=ArgumentError, argument="dry_run"):
        dry_run(DENSITIES, settings)


@pytest.mark.parametrize("machine", ["h100:2x8"])
def test_several_hosts_are_refused(machine, refused):
    with refused("one host", "2 hosts of 8", kind=ArgumentError, argument="for"):
        dry_run(DENSITIES, Sampling(chains=2), machine=Machine.parse(machine))
