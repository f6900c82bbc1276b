"""What all tests run under: types checked at run time, no silent broadcasting or casting."""

import math
import os
import re
import runpy
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Self

import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from beartype import BeartypeConf, FrozenDict, beartype

check_types = beartype(
    # An int will do for a float, as for mypy; methods are decorated one by one, where beartype
    # has no class that `Self` could stand for.
    conf=BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: object}))
)
jaxtyping.install_import_hook("ppl_cnn", f"{__name__}.check_types")

jax.config.update("jax_numpy_rank_promotion", "raise")

# Where other processes keep the machine busy, an example may take any time.
hypothesis.settings.register_profile("undated", deadline=None)
hypothesis.settings.load_profile("undated")

# Workers, runs in processes of their own and the next session need not compile what one has. Small
# programs count: a file of tests may have a thousand, each 15 ms to compile and 4 to read.
PROGRAMS = {
    "jax_compilation_cache_dir": str(Path(__file__).parents[1] / ".pytest_cache" / "programs"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
}
for name, value in PROGRAMS.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)

# Half of the time goes into compiling small programs. With less effort that of a small `tempered`
# takes 3.3 seconds, not 7.0, and that of a trained unit's `split` 5.6, not 6.5.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=1 --xla_cpu_parallel_codegen_split_count=1 "
    + os.environ.get("XLA_FLAGS", "")
)

# What runs for longer than it compiles. The rest compiles with the least effort, but beside long
# proofs, which run longer still.
OPTIMIZED = ("test_cnn.py", "test_stein.py", "test_tempered.py")


def quick(config: pytest.Config) -> bool:
    """Whether the long proofs are left out."""
    return config.option.markexpr == "not long"


SMALL_FILES = ("data", "options")
"""Rooms whose files take little time each."""


def pytest_collection_modifyitems(items):
    """Small files come last, so that the workers, which take files in turn, end together."""
    items.sort(key=lambda item: not {*SMALL_FILES}.isdisjoint(item.path.parts))


def pytest_configure(config):
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(quick(config)))  # the notebook's


@pytest.fixture(autouse=True, scope="module")
def _effort_of_compiling(request):
    least = quick(request.config) and Path(request.path).name not in OPTIMIZED
    if least != jax.config.read("jax_disable_most_optimizations"):
        jax.config.update("jax_disable_most_optimizations", least)
        jax.clear_caches()  # Programs are not kept by effort, and their last bits depend on it.
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(least))


# Folders and files. NumPyro's HMC divides floats by integers, so tests that run it can't be strict.
STRICT_DTYPES = ("models", "test_losses.py")


@pytest.fixture(autouse=True)
def _strict_dtypes(request):
    parts = Path(request.node.path).parts[len(Path(__file__).parent.parts) :]
    strict = bool({*STRICT_DTYPES} & {*parts})
    with jax.numpy_dtype_promotion("strict" if strict else "standard"):
        yield


@contextmanager
def types_unchecked():
    """As in a user's program."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def as_in_a_program():
    """Types are not checked in the test."""
    with types_unchecked():
        yield


@pytest.fixture
def command(monkeypatch, capsys):
    """A function that runs `python -m MODULE ARGUMENTS` in this process, which starts in no time.

    What needs a process of its own (signals, devices, what is imported) has to start one.
    """

    def run(module: str, *arguments: object) -> CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        capsys.readouterr()
        code = 0
        with types_unchecked(), warnings.catch_warnings():
            # Another test may have imported it.
            warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
            try:
                runpy.run_module(module, run_name="__main__")
            except SystemExit as end:
                code = end.code
        said = capsys.readouterr()
        return CompletedProcess(sys.argv, code or 0, said.out, said.err)

    return run


@pytest.fixture
def unplotted(monkeypatch):
    """Pages without ArviZ's plots, which take most of a page's time."""
    monkeypatch.setattr("ppl_cnn.inference.report.section.plots_html", lambda *given: "")


@pytest.fixture
def refused():
    """A context whose code must raise an `InputError` of that kind, whose message has these facts.

    Facts are names, values and paths, not sentences. Types are not checked in the context, as
    they are not in a user's program.
    """
    from ppl_cnn import InputError

    @contextmanager
    def context(*facts: object, kind: type[InputError] = InputError, **attributes: object):
        with types_unchecked(), pytest.raises(kind) as caught:
            yield
        said = str(caught.value)
        assert said.endswith(".")
        assert "\n" not in said
        assert len(re.findall(r"[.!?] [A-Z`]", said)) < 2, f"more than two sentences: {said}"
        for fact in facts:
            assert str(fact) in said
        for name, value in attributes.items():
            assert getattr(caught.value, name) == value

    return context


@pytest.fixture
def random_params():
    """A function of a network to weights: kernels N(0, 2/fan_in), scales N(1, 0.2^2), and biases
    and shifts N(0, 0.2^2)."""
    from ppl_cnn.models.networks.graph import weight_shapes

    def params_of(network, seed: int = 0):
        random = np.random.default_rng(seed)

        def weight(kind, shape):
            normal = random.standard_normal(shape, np.float32)
            if kind == "kernel":
                return jnp.asarray(np.float32(math.sqrt(2 / math.prod(shape[:-1]))) * normal)
            return jnp.asarray(np.float32(kind == "scale") + np.float32(0.2) * normal)

        return {
            name: {kind: weight(kind, shape) for kind, shape in wanted.items()}
            for name, wanted in weight_shapes(network).items()
        }

    return params_of
