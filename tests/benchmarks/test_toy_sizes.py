"""Each benchmark runs on toy sizes, so that none falls behind the package."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
WITHOUT_COMMAND = {
    *(
        "common.py",
        "gpu_parts.py",
        "recognition/arms.py",
        "recognition/findings.py",
        "recognition/judge.py",
    ),
    *("sampling/digits.py", "sampling/kernels.py", "sampling/mixing_table.py"),
    *("sampling/sampler_cases.py", "sampling/sampler_run.py", "sampling/self_tuned.py"),
    *("sampling/two_sided.py", "references/chains.py", "references/ten_classes.py"),
    *("references/judge.py", "references/langevin.py", "references/likeness.py"),
    *("references/study.py", "references/tables.py", "references/unrefined.py"),
    "references/weighing.py",
    "training/pretraining_runs.py",
}
"""Files that others import."""
WITH_TORCH = {"training/torch_step.py"}
"""Files that run under another Python."""
TOYS = {
    "gpu_check.py": ["--out", "{out}/gpu_check"],
    "speed/busy.py": [],
    "speed/leapfrog.py": [],
    "speed/loading.py": ["--threads", "2", "--readers", "1"],
    "speed/loops.py": [],
    "speed/memory.py": [],
    "speed/side_by_side.py": [],
    "speed/slab.py": [],
    "speed/starts.py": [],
    "sampling/mixing.py": ["{out}"],
    "sampling/samplers.py": ["{out}/draws.jsonl"],
    "sampling/samplers_table.py": ["{out}/draws.jsonl", "{out}/steps.jsonl", "{out}/all.png"],
    "sampling/step_size.py": ["{out}/steps.jsonl"],
    "recognition/class_images.py": [
        *("{out}/images", "--arms", "vivid", "lucid", "--classes", "1", "--chains", "2")
    ],
    "recognition/judging.py": [],
    "recognition/temperatures.py": [
        *("{out}/temperatures", "--size", "32", "--warps", "1", "--classes", "1", "--chains", "4"),
        *("--gradients", "80", "--cold", "1", "--reference", "bounded:band:8@18"),
    ],
    "references/class_samples.py": ["{out}/references"],
    "references/faces.py": ["{out}/faces", "32", "limits"],
    "references/textures.py": ["{out}/textures"],
    "training/pretraining.py": ["--out", "{out}/pretraining"],
    "training/training_step.py": [],
}
"""Benchmark -> its arguments beside --toy."""
FILES = {
    "sampling/mixing.py": ("toy/table.md", "toy/mixing.png"),
    "sampling/samplers_table.py": ("all.png",),
    "recognition/class_images.py": ("images/table.md", "images/grid-efficientnet-lite0.png"),
    "references/class_samples.py": ("references/toy/tables.md", "references/toy/class_samples.png"),
    "references/faces.py": ("faces/table.md", "faces/faces.png"),
    "references/textures.py": ("textures/table.md", "textures/textures.png"),
    "training/pretraining.py": ("pretraining/table.md", "pretraining/curves.png"),
}
"""Benchmark -> the files that it must have written."""
DIFFERENCES = ("numpyro_over_driver",)
"""Numbers from the difference of two times, which has either sign where a toy's runs are short."""


def test_no_benchmark_is_left_out():
    files = {path.relative_to(BENCHMARKS).as_posix() for path in BENCHMARKS.rglob("[!_]*.py")}
    assert files == WITHOUT_COMMAND | WITH_TORCH | set(TOYS)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One folder for all, since samplers_table.py reads what two others have written."""
    return tmp_path_factory.mktemp("benchmarks")


def module_of(name):
    return "benchmarks." + name.removesuffix(".py").replace("/", ".")


LONG = {
    "gpu_check.py",
    *("references/class_samples.py", "references/textures.py"),
    *("training/pretraining.py", "training/training_step.py"),
    *("sampling/samplers.py", "sampling/samplers_table.py", "sampling/mixing.py"),
    *("recognition/class_images.py", "recognition/temperatures.py"),
    *(
        "speed/busy.py",
        "speed/leapfrog.py",
        "speed/loops.py",
        "speed/side_by_side.py",
    ),
}
"""Toys that take eight seconds and more: they run in `make test-all`."""
ORDER = sorted(TOYS, key=lambda name: (name == "sampling/samplers_table.py", name))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in ORDER]
)
def test_a_toy_runs(name, out, command, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for processes that it starts
    monkeypatch.chdir(ROOT)
    arguments = [argument.format(out=out) for argument in TOYS[name]]
    done = command(module_of(name), "--toy", *arguments)
    assert done.returncode == 0, done.stderr
    for file in FILES.get(name, ()):
        assert (out / file).stat().st_size > 100
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if name == "gpu_check.py":
        assert lines[-1]["part"] == "verdict"
    if name.startswith("speed/"):
        assert lines
        found = [pair for line in lines for pair in line.items() if isinstance(pair[1], float)]
        assert all(math.isfinite(value) for _, value in found)
        assert min(value for number, value in found if number not in DIFFERENCES) > 0


def test_the_step_in_pytorch_runs():
    python = os.environ.get("PPL_CNN_TORCH_PYTHON")
    if python is None:
        pytest.skip("PPL_CNN_TORCH_PYTHON names no Python that has PyTorch")
    step = [python, BENCHMARKS / "training/torch_step.py", "1"]
    done = subprocess.run(step, input="\n", capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0


@pytest.mark.parametrize(
    ("name", "value", "diverged"),
    [("loss", math.nan, True), ("gradient_norm", math.inf, True), ("loss", 2.0, False)],
)
def test_a_run_has_diverged_if_a_step_is_not_finite(tmp_path, monkeypatch, name, value, diverged):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.training.pretraining_runs import has_diverged

    step = {"step": 1, "loss": 2.3, "gradient_norm": 0.5}
    lines = [step, {"step": 1, "test_error": 0.1}, {**step, "step": 2, name: value}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert has_diverged(tmp_path) == diverged


def test_help_is_the_docstring_and_measures_nothing():
    script = [sys.executable, "-m", "benchmarks.speed.slab", "--help"]
    done = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "python -m benchmarks.speed.slab" in done.stdout
    assert "--toy" in done.stdout
