"""How exactly, and how repeatably, devices compute."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

type Precision = Literal["default", "high", "highest"]
"""How exact products of matrices and convolutions are. default: as fast as the device can, on GPUs
since the A100 with 10 bits of mantissa (TF32); highest: in float32; high: between the two."""

IN_ORDER = "xla_gpu_exclude_nondeterministic_ops"
"""The option by which XLA adds in one order on a GPU."""
DETERMINISTIC = "xla_gpu_deterministic_ops"
"""The option by which it also tries no kernels out; that can't be compiled without a GPU."""


def products(precision: Precision, platform: str | None = None) -> AbstractContextManager[object]:
    """Compiles programs with products of a precision, while the context lasts.

    CPUs compute in float32 in any case.

    Args:
        precision: how exact.
        platform: what is compiled for; by default JAX's own.
    """
    import jax

    if (platform or jax.default_backend()) == "cpu":
        return nullcontext()
    return jax.default_matmul_precision(precision)


def repeatable() -> None:
    """Lets programs give the same bits at each run on the same kind of GPU; it costs speed there.

    Call it before JAX is used.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{DETERMINISTIC}=true".strip()


def keep_programs(folder: Path) -> None:
    """Keeps compiled programs, so that a run that is resumed has the same ones and soon.

    Args:
        folder: where to keep them.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    compilation_cache.reset_cache()  # JAX looks for the folder once, maybe before it was named
