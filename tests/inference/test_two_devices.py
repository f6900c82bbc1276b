"""The proofs of the kernels hold where the host has two devices, over which chains are spread."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROOFS = (
    "test_chains.py::test_a_linear_response_gives_the_shifted_gaussian",
    "test_chains.py::test_a_quadratic_response_gives_the_other_gaussian",
    "test_chains.py::test_steins_identity_holds_on_a_trained_network",
    "test_agreement.py",
    "test_evidence.py",
    "test_split.py",
    "test_stein.py",
    "test_tempered.py",
)


@pytest.mark.long
def test_proofs_hold_on_two_devices(tmp_path):
    counted = tmp_path / "test_count.py"
    counted.write_text("import jax\n\ndef test_two():\n    assert jax.device_count() == 2\n")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    others = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(counted)]
    subprocess.run(
        command + [str(HERE / proof) for proof in PROOFS],
        cwd=HERE.parents[1],
        env=others | {"XLA_FLAGS": flags},
        check=True,
    )
