"""A trace of what devices and host do, by JAX's profiler."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path


def traced(folder: Path | None) -> AbstractContextManager[object]:
    """Traces what runs while the context lasts, for TensorBoard, XProf or Perfetto.

    Args:
        folder: gets the trace; None traces nothing.
    """
    import jax

    if folder is None:
        return nullcontext()
    context: AbstractContextManager[object] = jax.profiler.trace(str(folder))
    return context
