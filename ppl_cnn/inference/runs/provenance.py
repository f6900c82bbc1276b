"""What is needed to repeat a run besides its configuration: source, versions, devices, host."""

import contextlib
import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jax

from ppl_cnn.inference.runs.record import versions
from ppl_cnn.work import usable_cores

_SETTINGS = ("JAX_", "XLA_", "TF_XLA_", "LIBTPU_", "NCCL_", "CUDA_VISIBLE_DEVICES", "OMP_NUM_")
"""Prefixes of the environment variables that change what JAX computes, or where."""


def session(step: int, command: str) -> dict[str, Any]:
    """One start of a run, as JSON: the source, packages, devices, host and environment it had.

    Args:
        step: the step that it started from; 0 unless it resumed.
        command: how it was started.
    """
    devices = jax.devices()
    return {
        "step": step,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "source": source(),
        "versions": versions(),
        "devices": {"kind": devices[0].device_kind, "count": len(devices)},
        "processes": jax.process_count(),
        "host": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": usable_cores(),
        },
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)
        },
        "matmul_precision": jax.config.jax_default_matmul_precision,
        "executable": sys.executable,
    }


@cache
def source() -> dict[str, str]:
    """The package's code: a SHA-256 digest of its modules and, in a git checkout, the commit."""
    folder = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes())
    found = {"sha256": digest.hexdigest()}
    if (folder.parent / ".git").exists():
        command = ["git", "-C", str(folder.parent), "describe", "--always", "--dirty"]
        # Without git, or in another user's checkout, there is the digest alone.
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found["commit"] = done.stdout.strip()
    return found


def _processor() -> str:
    """The processor's name; empty if the system doesn't tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
