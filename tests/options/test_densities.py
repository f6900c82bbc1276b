import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

import ppl_cnn
from ppl_cnn import Averaged, Band, Bounded, Preprocessing, Spectral
from ppl_cnn.errors import ArgumentError
from ppl_cnn.evidence import EvidenceOptions
from ppl_cnn.inference.kernels.registry import KERNELS
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.networks.graph import weight_shapes
from ppl_cnn.models.trained.model_folder import embedded_names
from ppl_cnn.options.densities import DensityOptions
from ppl_cnn.options.presets import PRESETS
from ppl_cnn.sample import SampleOptions

SCORE = ppl_cnn.ScoreFunction(jnp.mean, (28, 28, 1))
WHITE = ppl_cnn.TiltedDensity(SCORE, ppl_cnn.WhiteNoise(1.0))
IMAGES = ppl_cnn.EmpiricalDensity(SCORE, ppl_cnn.Empirical("fashion-embedded", "test[:20]"))


def parsed(*arguments, kind=SampleOptions):
    """The options of a command line, as the command reads it."""
    return tyro.cli(kind, args=arguments)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_its_values_and_explicit_options_override_it(preset):
    options = parsed("--preset", preset, "--unit", "fc8:1")
    assert options == SampleOptions(unit="fc8:1", preset=preset)
    assert options.values() == PRESETS[preset]
    others = parsed("--warps", "7", "--unit", "fc8:1", f"--recipe={preset}", "--size", "None")
    assert others.values() == PRESETS[preset]._replace(warps=7, size=None)


@pytest.mark.parametrize("name", ["target", "warps", "smooth", "size", "reference", "temperature"])
def test_an_explicit_default_overrides_a_preset(name):
    """Such as `--preset vivid --warps 0`."""
    published = getattr(PRESETS["published"], name)
    options = parsed("--preset", "vivid", "--unit", "fc8:1", f"--{name}", str(published))
    assert options.values() == PRESETS["vivid"]._replace(**{name: published})


def test_starts_are_the_presets_unless_given():
    assert parsed("--unit", "fc8:1").starts == "prior"
    assert parsed("--unit", "fc8:1", "--preset", "published").starts == "prior"
    assert parsed("--unit", "fc8:1", "--two-sided").starts == "two-sided:rto"
    assert parsed("--unit", "fc8:1", "--preset", "vivid").starts == "rto"
    assert parsed("--unit", "fc8:1", "--preset", "vivid", "--init", "zero").starts == "zero"


@pytest.mark.parametrize(
    ("given", "kernel", "warmup", "draws"),
    [
        ([], "split(moves=trajectories, step_size=0.006, angle=0.15)", 3, 4),
        (["--draws", "40"], "split(moves=trajectories, step_size=0.006, angle=0.15)", 3, 40),
        (["--kernel", "split", "--warmup", "200"], "split", 200, 4),
        (["--kernel", "split(step_size=0.01)"], "split(step_size=0.01)", 3, 4),
        (["--temperature", "1"], "split(moves=trajectories, step_size=0.006, angle=0.15)", 3, 4),
    ],
)
def test_kernel_warmup_and_draws_are_the_presets_unless_given(given, kernel, warmup, draws):
    options = parsed("--unit", "fc8:1", "--preset", "vivid", "--size", "None", *given)
    method = options.method(WHITE)
    settings = options.settings(method)
    assert str(settings.kernel) == settings.record()["kernel"] == kernel
    assert (settings.warmup, options.values().draws) == (warmup, draws)


def test_without_a_preset_the_density_decides_on_the_kernel():
    options = parsed("--unit", "fc8:1")
    settings = options.settings(options.method(WHITE))
    assert (str(settings.kernel), settings.warmup, options.values().draws) == ("split", 200, 500)


def test_a_presets_kernel_is_for_chains(refused):
    options = ["--unit", "fc8:1", "--preset", "vivid", "--size", "None"]
    assert str(parsed(*options).method(IMAGES)) == "resample"
    with refused("split", kind=ArgumentError, argument="kernel"):
        parsed(*options, "--kernel", "split").method(IMAGES)


def test_a_command_without_starts_takes_the_rest_of_a_preset():
    options = parsed("--preset", "vivid", "--unit", "fc8:1", kind=EvidenceOptions)
    assert options.values() == PRESETS["vivid"]
    assert not hasattr(options, "start")
    # Its numbers of draws and of warm-up transitions are another thing's.
    options = parsed(
        *("--preset", "vivid", "--unit", "fc8:1", "--draws", "40"), kind=EvidenceOptions
    )
    assert (options.numbers()["draws"], options.values()) == (40, PRESETS["vivid"])
    assert parsed("--unit", "fc8:1", kind=EvidenceOptions) == EvidenceOptions(unit="fc8:1")


def test_an_unknown_preset_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        parsed("--preset", "lurid", "--unit", "fc8:1")
    assert end.value.code == 2
    assert "published" in capsys.readouterr().err


def test_the_values_in_force_are_printed(capsys):
    parsed("--preset", "vivid", "--unit", "fc8:1", "--temperature", "0.01").print_values([])
    said = capsys.readouterr().err
    assert said.startswith("preset vivid: target soft-log-prob:10, warps 4, ")
    assert "temperature 0.01 (not 0.0005)" in said
    SampleOptions(unit="fc8:1").print_values([])
    assert capsys.readouterr().err == ""


TRAINED = "since the last stage of its training was discriminative"


@pytest.mark.parametrize(
    ("given", "targets", "said"),
    [
        ({"unit": "class:Bag"}, ["log-prob"], f"target: log-prob, {TRAINED}\n"),
        (
            {"unit": "conv5:1,class:Bag", "target": "auto"},
            ["logit", "log-prob"],
            f"target: log-prob, {TRAINED}\n",
        ),
        ({"unit": "conv5:1"}, ["logit"], ""),
        ({"unit": "class:Bag", "target": "logit"}, ["logit"], ""),
        ({"unit": "class:Bag,conv5:1", "preset": "published"}, ["logit", "logit"], "preset "),
    ],
)
def test_the_target_of_classes_goes_by_the_networks_training(given, targets, said, capsys):
    options = DensityOptions(**given)
    named = options.named()
    assert [str(density.unit.target) for density in named.densities] == targets
    options.print_values(named.choices)
    printed = capsys.readouterr().err
    assert printed.startswith(said)
    assert ("target: " in printed) == said.startswith("target: ")
    # The run's folder is named as when the target in force is given.
    folder = options.folder("split", named.target)
    assert ("log-prob" in str(folder)) == ("log-prob" in targets)


def test_pixels_and_the_entry_of_a_checkpoint_reach_the_network(tmp_path):
    """Also that of the published setting beside the run."""
    np.savez(
        tmp_path / "both.npz",
        **{
            f"{entry}.{layer}.{key}": np.full(shape, value, np.float32)
            for entry, value in (("model", 1), ("model_ema", 2))
            for layer, weights in weight_shapes(LENET).items()
            for key, shape in weights.items()
        },
    )
    given = ["--model", "lenet", "--weights", str(tmp_path / "both.npz"), "--unit", "conv1:0"]
    pixels = "mean=72 scale=1/64 order=grey"
    options = parsed(*given, "--pixels", pixels, "--entry", "model_ema")
    for each in (options, options.published(tmp_path)):
        unit = each.named().densities[0].unit
        assert unit.preprocessing == Preprocessing((72.0,), (1 / 64,), "grey")
        assert {float(np.max(leaf)) for leaf in jax.tree.leaves(unit.params)} <= {0.0, 2.0}
        assert each.model_in_record == f"lenet (pixels {pixels})"
    assert parsed(*given).model_in_record == "lenet"


def test_a_record_has_the_target_in_force():
    named = DensityOptions(unit="class:Bag", preset="published", target="auto").named()
    assert named.description["recipe"]["target"] == "log-prob"
    assert named.densities[0].unit.settings["target"] == "log-prob"


def test_the_published_setting_of_the_same_units_takes_the_runs_size_alone():
    options = SampleOptions(
        unit="conv5:1",
        kernel="isir",
        temperature=0.3,
        two_sided=True,
        chains=3,
        draws=7,
        warmup=5,
        seed=4,
        out=Path("elsewhere"),
    )
    wanted = SampleOptions(
        unit="conv5:1",
        preset="published",
        chains=3,
        draws=7,
        warmup=5,
        seed=4,
        out=Path("run/published"),
    )
    assert options.published(Path("run")) == wanted


def test_options_name_a_density():
    options = DensityOptions(
        unit="class:3",
        target="soft-log-prob:5",
        warps=3,
        smooth=2.0,
        reference="bounded:band:6:1.5@18",
        preset="vivid",
        size=None,
    )
    named = options.named()
    (density,) = named.densities
    assert density.unit == Averaged(density.unit.unit, 3, 2.0)
    assert str(density.unit.unit.target) == "soft-log-prob:5"
    assert density.reference == Bounded(Band(6, Spectral(1.5, contrast=18.0)))
    assert density.latent_shape == (6, 6, 1)
    assert named.description["recipe"]["name"] == "vivid"
    assert named.description["recipe"]["warps"] == 3
    assert named.description["classes"] == {"fc8:3": "Dress"}
    assert options.folder("split", named.target) == Path(
        "runs/alexnet-fashion-class-3-soft-log-prob-5-vivid-split"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unit": "fc8:1", "size": 64}, ("alexnet-fashion", "28x28", "`size`")),
        ({"unit": "fc8:1", "warps": -1}, ("at least 0",)),
        ({"unit": "fc8:1", "smooth": 3.0}, ("warps", "smooth", "3")),
        ({"unit": "fc8:1", "target": "soft-log-prob"}, ("Unknown target", "soft-log-prob:10")),
        ({"unit": "conv5:1", "target": "soft-log-prob:3"}, ("no probabilities",)),
        ({"unit": "fc8:1", "reference": "band:32"}, ("28x28", "band:28")),
        ({"unit": "fc8:1", "reference": "spectral@0"}, ("contrast",)),
    ],
)
def test_densities_that_cannot_be_are_refused(options, words, refused):
    with refused(*words):
        DensityOptions(**options).named()


def test_help_names_each_kernel_and_model():
    """The help is written by hand, since the registries import JAX."""
    done = subprocess.run(
        [sys.executable, "-m", "ppl_cnn.sample", "--help"], capture_output=True, text=True
    )
    for name in (*KERNELS, *embedded_names()):
        assert re.search(rf"\b{name}\b", done.stdout), name


@pytest.mark.long
def test_a_presets_run_is_recorded_continued_and_told(tmp_path, command):
    out = tmp_path / "run"
    given = ["--unit", "class:Trouser", "--preset", "vivid", "--size", "None"]
    given += ["--reference", "bounded:band:6@18", "--temperature", "0.1"]
    given += ["--chains", "2", "--warmup", "10", "--out", out]
    for draws in ("6", "12"):
        done = command("ppl_cnn.sample", *given, "--draws", draws)
        assert done.returncode == 0, done.stderr
        assert "preset vivid: target soft-log-prob:10, warps 4" in done.stderr
        assert done.stdout.splitlines() == [str(out / "report.html")]
    assert open_draws(out / "draws.zarr")["posterior/image"].shape == (2, 12, 28, 28, 1)
    record = json.loads((out / "run.json").read_text())
    config = record["config"]
    assert (config["target"], config["warps"], config["smooth"]) == ("soft-log-prob:10", 4, 0.0)
    assert (config["reference"], config["init"]) == ("bounded:band:6@18", "rto")
    assert record["recipe"] == {
        **{"name": "vivid", "target": "soft-log-prob:10", "warps": 4, "smooth": 0.0},
        **{"size": None, "reference": "bounded:band:6@18", "temperature": 0.1, "start": "rto"},
        **{
            "kernel": "split(moves=trajectories, step_size=0.006, angle=0.15)",
            "warmup": 10,
            "draws": 12,
        },
    }
    assert config["kernel"] == record["recipe"]["kernel"]
    page = (out / "report.html").read_text()
    for words in ("target soft-log-prob:10", "mean over 4 warps", "bounded:band:6@18", "T = 1/10"):
        assert words in page
    other = command("ppl_cnn.sample", *given, "--warps", "5")
    assert other.returncode == 2
    assert "warps 4, not 5" in other.stderr
