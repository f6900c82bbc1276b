"""The proofs of the kernels hold where the host has two devices, over which chains are spread."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[1]
DRIVER = "sampling/test_driver.py::"
PROOFS = (
    f"{DRIVER}test_a_linear_response_gives_the_shifted_gaussian",
    f"{DRIVER}test_a_band_and_warps_leave_a_linear_response_its_closed_form",
    f"{DRIVER}test_a_quadratic_response_gives_the_other_gaussian",
    f"{DRIVER}test_steins_identity_holds_on_a_trained_network",
    "kernels/test_agreement.py",
    "kernels/test_own_kernel.py",
    "kernels/test_split.py",
    "kernels/test_tempered.py",
    "sampling/resampling/test_run.py",
    "sampling/starts/test_resampled.py",
    "sampling/evidence/test_log_z.py",
    "sampling/test_stein.py",
)
LENGTHIEST = ("6000", "50000", "squeezenet", "128")
"""In the names of what takes many minutes each and shows of devices what the others do."""


@pytest.mark.long
def test_proofs_hold_on_two_devices(tmp_path):
    counted = tmp_path / "test_count.py"
    counted.write_text("import jax\n\ndef test_two():\n    assert jax.device_count() == 2\n")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    others = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(counted)]
    command += ["-m", "long or not long", "-k", f"not ({' or '.join(LENGTHIEST)})"]
    subprocess.run(
        command + [str(ROOM / proof) for proof in PROOFS],
        cwd=ROOM.parents[1],
        env=others | {"XLA_FLAGS": flags},
        check=True,
    )
