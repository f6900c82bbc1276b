import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import pytest
import safetensors.numpy
import xarray as xr

import ppl_cnn
from ppl_cnn.errors import with_options
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.models.trained.model_folder import EMBEDDED

WHITE = ("--reference", "white:10")
SETTINGS = (*WHITE, "--unit", "conv2:5", "--chains", "2", "--draws", "120", "--warmup", "60")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, and what the command printed."""
    out = tmp_path_factory.mktemp("sample") / "run"
    done = subprocess.run(
        [sys.executable, "-m", "ppl_cnn.sample", *SETTINGS, "--out", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    return out, done


def test_the_last_line_is_the_reports_path(run):
    out, done = run
    assert done.stdout.splitlines() == [str(out / "report.html")]
    assert (out / "report.html").stat().st_size > 100_000
    assert (out / "summary.csv").read_text().startswith("quantity,mean,sd")


def test_progress_shows_rate_acceptance_and_eta(run):
    _, done = run
    last = done.stderr.replace("\r", "\n")
    assert "sampling: 100%" in last
    assert "acceptance 0." in last
    assert "draws/s" in last


def test_nothing_but_progress_is_said(run):
    """No warnings of libraries."""
    _, done = run
    assert "Warning" not in done.stderr


def test_the_record_follows_arvizs_schema(run):
    out, _ = run
    tree = xr.open_datatree(out / "draws.zarr", engine="zarr")
    unit = ppl_cnn.load("alexnet-fashion").unit("conv2:5")
    assert tree["posterior/image"].dims == ("chain", "draw", "row", "col", "channel")
    assert tree["posterior/image"].shape == (2, 120, *unit.shape)
    assert tree["posterior/response"].shape == (2, 120)
    assert set(tree["sample_stats"].data_vars) == {
        *("lp", "energy", "acceptance_rate", "diverging", "n_steps", "step_size"),
        *(
            "forward_passes",
            "turn",
            "fresh_per_draw",
            "worth_of_turns",
            "worth_of_fresh",
            "worth_of_trajectories",
        ),
        *("width", "worth_of_softened"),
    }
    config = tree.attrs["config"]
    assert config["unit"] == "conv2:5@7,7"
    assert config["reference"] == "white:10"
    assert config["temperature"] == 1.0
    assert "jax" in tree.attrs["versions"]
    record = json.loads((out / "run.json").read_text())
    assert record["config"] == config
    assert record["command"].startswith(
        "python -m ppl_cnn.sample --reference white:10 --unit conv2:5"
    )
    assert record["gradients"]["sampling"] == int(tree["sample_stats/n_steps"].sum())


@pytest.mark.long
def test_several_units_get_one_report_and_classes_their_names(tmp_path, command):
    given = ["--unit", "class:Trouser,fc8:3,conv1:0", "--reference", "uniform", "--init", "zero"]
    given += ["--chains", "2", "--draws", "20", "--warmup", "10"]
    done = command("ppl_cnn.sample", *given, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "report.html")]
    assert (
        "target: log-prob, since the last stage of its training was discriminative" in done.stderr
    )
    page = (tmp_path / "report.html").read_text()
    assert "fc8:1 (Trouser)" in page
    assert "fc8:3 (Dress)" in page
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["config"]["units"] == ["fc8:1", "fc8:3", "conv1:0@14,14"]
    assert record["config"]["init"] == "zero"
    assert record["classes"] == {"fc8:1": "Trouser", "fc8:3": "Dress"}
    assert record["config"]["target"] == "log-prob, logit"
    for name, target in {
        "fc8-1": "log-prob",
        "fc8-3": "log-prob",
        "conv1-0-at-14,14": "logit",
    }.items():
        own = json.loads((tmp_path / name / "run.json").read_text())
        assert own["config"]["target"] == target
        assert open_draws(tmp_path / name / "draws.zarr")["posterior/image"].sizes["draw"] == 20


@pytest.fixture
def own_reference(tmp_path, monkeypatch):
    """A model's folder whose network has a reference of its own."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "models")
    folder = shutil.copytree(EMBEDDED / "alexnet-fashion", tmp_path / "model")
    description = json.loads((folder / "model.json").read_text())
    description["reference"] = "own_generator:waves"
    (folder / "model.json").write_text(json.dumps(description))
    return folder


@pytest.mark.usefixtures("unplotted")
def test_filters_under_the_networks_own_reference_have_the_published_setting_beside(
    own_reference, tmp_path, command
):
    out = tmp_path / "run"
    given = ("--model", own_reference, "--unit", "conv1:0", "--chains", "2", "--warmup", "4")
    given += ("--kernel", "langevin")  # which compiles in the least time
    for draws in ("4", "6"):
        done = command("ppl_cnn.sample", *given, "--draws", draws, "--out", out)
        assert done.returncode == 0, done.stderr
    assert "reference: own_generator:waves, which alexnet-fashion names as its own" in done.stderr
    assert done.stderr.count("The run resumes there") == 2
    runs = {out: "generator:own_generator:waves@", out / "published": "white:10"}
    for folder, reference in runs.items():
        assert open_draws(folder / "draws.zarr")["posterior"].sizes["draw"] == 6
        config = json.loads((folder / "run.json").read_text())["config"]
        assert config["reference"].startswith(reference)
        assert (config["chains"], config["warmup"], config["seed"]) == (2, 4, 0)
    assert "The published setting" in (out / "report.html").read_text()
    alone = tmp_path / "alone"
    done = command("ppl_cnn.sample", *given, "--draws", "6", "--beside", "none", "--out", alone)
    assert done.returncode == 0, done.stderr
    assert not (alone / "published").exists()
    records = [json.loads((each / "run.json").read_text())["config"] for each in (out, alone)]
    assert records[0] == records[1]


def test_the_responses_are_the_networks(run):
    out, _ = run
    tree = open_draws(out / "draws.zarr")
    unit = ppl_cnn.load("alexnet-fashion").unit("conv2:5")
    for draw in (0, 57, 119):
        image = jnp.asarray(tree["posterior/image"][1, draw].values)
        score = float(unit.score(unit.params, image))
        assert score == pytest.approx(float(tree["posterior/response"][1, draw]), abs=1e-4)


@pytest.mark.long
def test_a_killed_run_continues_to_the_same_bits(run, tmp_path):
    out, _ = run
    again = [sys.executable, "-m", "ppl_cnn.sample", *SETTINGS, "--out", str(tmp_path / "run")]
    process = subprocess.Popen(again, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (tmp_path / "run" / "state.npz").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "report.html").exists()
    subprocess.run(again, stderr=subprocess.DEVNULL, check=True)
    whole = open_draws(out / "draws.zarr")
    continued = open_draws(tmp_path / "run" / "draws.zarr")
    for group in ("posterior", "sample_stats", "stein"):
        xr.testing.assert_identical(
            whole[group].to_dataset().load(), continued[group].to_dataset().load()
        )


def test_a_process_ends_with_a_sentence_and_exit_code_2():
    arguments = [sys.executable, "-m", "ppl_cnn.sample", "--unit", "conv9"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert "conv9" in refusal(done)


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--unit", "conv5:12", "--model", "nosuch"], ["nosuch"]),
        (["--unit", "conv5:12", "--model", "alexnet"], ["alexnet", "weights"]),
        (["--unit", "conv9:12"], ["conv9"]),
        (["--unit", "conv5:64"], ["conv5", "63"]),
        (["--unit", "conv5:12@7,0"], ["6,6"]),
        (["--unit", "conv9"], ["conv9"]),
        (["--unit", "conv5:12", "--reference", "pink:3"], ["pink"]),
        (["--unit", "conv5:12", "--reference", "white:-3"], ["-3"]),
        (["--unit", "conv5:12", "--temperature", "0"], ["temperature", "0"]),
        (["--unit", "conv5:12", *WHITE, "--out", "/dev/null/run"], ["/dev/null/run", "--out"]),
        (["--unit", "conv5:1,conv5:1"], ["conv5:1@3,3"]),
        (["--unit", "class:Shoe"], ["Shoe"]),
        (["--unit", "fc8:1", "--response", "post"], ["fc8"]),
        (["--unit", "conv5:1", "--target", "log-prob"], ["conv5"]),
        (["--unit", "conv5:1", "--kernel", "gibbs"], ["gibbs", "tempered"]),
        (["--unit", "conv5:1", "--kernel", "tempered:0"], ["tempered:0", "tempered:R"]),
        (["--unit", "conv5:1", "--init", "image:nosuch.png"], ["nosuch.png"]),
        (["--unit", "conv5:1", "--two-sided", "--start", "prior"], ["prior", "--start"]),
        (["--unit", "conv5:1", "--start", "anneal:1"], ["at least 2", "1"]),
        (["--unit", "conv5:1", "--fit", "."], ["spectral"]),
        (["--unit", "conv5:1", "--model", "alexnet", "--weights", "nosuch"], ["nosuch"]),
        (["--unit", "conv5:0-1", *WHITE, "--side-by-side", "0"], ["--side-by-side", "at least 1"]),
        (["--unit", "conv5:1", "--chains", "0"], ["--chains", "at least 1"]),
        (["--unit", "conv5:1", "--draws", "3"], ["--draws 4", "3", "report"]),
        (["--unit", "conv5:1", "--chains", "3", "--two-sided"], ["3", "even", "--chains"]),
        (["--unit", "class:Bag", "--preset", "vivid"], ["--preset vivid", "160", "--size 28"]),
        (["--unit", "conv5:1", *WHITE, "--thin", "2000000000"], ["days", "--thin 2000000000"]),
    ],
)
def test_bad_input_gets_a_sentence_and_exit_code_2(arguments, facts, command):
    said = with_options(refusal(command("ppl_cnn.sample", *arguments)))
    assert all(fact in said for fact in facts), said


@pytest.mark.parametrize("damage", ["truncated", "nan", "shape"])
def test_damaged_weights_get_a_sentence_and_exit_code_2(tmp_path, damage, command):
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED / "alexnet-fashion", folder)
    path = folder / "weights.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        tensors = safetensors.numpy.load_file(path)
        if damage == "nan":
            tensors["conv2.bias"][3] = float("nan")
        else:
            tensors["conv2.bias"] = tensors["conv2.bias"][:-1]
        safetensors.numpy.save_file(tensors, path)
    said = refusal(command("ppl_cnn.sample", "--unit", "conv5:12", "--model", folder))
    assert {"truncated": "weights.safetensors", "nan": "NaN", "shape": "(63,)"}[damage] in said


def refusal(done):
    """The sentence with which a command has refused its arguments."""
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert lines[0].endswith(".")
    return lines[0]
