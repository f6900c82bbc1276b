import json
from pathlib import Path

import pytest
import tyro

from ppl_cnn import Averaged, Band, Bounded, Spectral
from ppl_cnn.evidence import Evidence
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.options.densities import RECIPES, Densities
from ppl_cnn.sample import Sample


def parsed(*arguments, kind=Sample):
    """The options of a command line, as the command reads it."""
    defaults = kind.by_recipe(arguments)
    given = {} if defaults is None else {"default": defaults}
    return tyro.cli(kind, args=arguments, **given)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_gives_its_values_and_what_is_given_counts(recipe):
    options = parsed("--recipe", recipe, "--unit", "fc8:1")
    assert options == Sample(unit="fc8:1", recipe=recipe, **RECIPES[recipe])
    others = parsed("--warps", "7", "--unit", "fc8:1", f"--recipe={recipe}", "--size", "None")
    assert others.warps == 7
    assert others.size is None
    assert others.target == RECIPES[recipe]["target"]


def test_the_published_recipe_is_the_commands_own_defaults():
    published, plain = parsed("--unit", "fc8:1", "--recipe", "published"), Sample(unit="fc8:1")
    for name in RECIPES["published"]:
        assert getattr(published, name) == getattr(plain, name)


def test_recipes_name_the_same_options_and_each_is_one():
    assert {tuple(recipe) for recipe in RECIPES.values()} == {tuple(RECIPES["vivid"])}
    for name in RECIPES["vivid"]:
        assert hasattr(Sample, name)


def test_a_command_without_starts_takes_the_rest_of_a_recipe():
    options = parsed("--recipe", "vivid", "--unit", "fc8:1", kind=Evidence)
    assert options.temperature == RECIPES["vivid"]["temperature"]
    assert not hasattr(options, "start")
    assert parsed("--unit", "fc8:1", kind=Evidence) == Evidence(unit="fc8:1")


def test_an_unknown_recipe_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        parsed("--recipe", "lurid", "--unit", "fc8:1")
    assert end.value.code == 2
    assert "published" in capsys.readouterr().err


def test_the_values_in_force_are_said(capsys):
    parsed("--recipe", "vivid", "--unit", "fc8:1", "--temperature", "0.01").say_recipe()
    said = capsys.readouterr().err
    assert said.startswith("recipe vivid: target soft-log-prob:10, warps 4, ")
    assert "temperature 0.01 (not 0.0005)" in said
    Sample(unit="fc8:1").say_recipe()
    assert capsys.readouterr().err == ""


def test_options_name_a_density():
    options = Densities(
        unit="class:3",
        target="soft-log-prob:5",
        warps=3,
        smooth=2.0,
        reference="bounded:band:6:1.5@18",
        recipe="vivid",
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
    assert options.folder("split") == Path(
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
        Densities(**options).named()


@pytest.mark.long
def test_a_recipes_run_is_recorded_continued_and_told(tmp_path, command):
    out = tmp_path / "run"
    given = ["--unit", "class:Trouser", "--recipe", "vivid", "--size", "None"]
    given += ["--reference", "bounded:band:6@18", "--temperature", "0.1"]
    given += ["--chains", "2", "--warmup", "10", "--out", out]
    for draws in ("6", "12"):
        done = command("ppl_cnn.sample", *given, "--draws", draws)
        assert done.returncode == 0, done.stderr
        assert "recipe vivid: target soft-log-prob:10, warps 4" in done.stderr
        assert done.stdout.splitlines() == [str(out / "report.html")]
    assert open_draws(out / "draws.zarr")["posterior/image"].shape == (2, 12, 28, 28, 1)
    record = json.loads((out / "run.json").read_text())
    config = record["config"]
    assert (config["target"], config["warps"], config["smooth"]) == ("soft-log-prob:10", 4, 0.0)
    assert (config["reference"], config["init"]) == ("bounded:band:6@18", "rto")
    assert record["recipe"] == {
        **{"name": "vivid", "target": "soft-log-prob:10", "warps": 4, "smooth": 0.0},
        **{"size": None, "reference": "bounded:band:6@18", "temperature": 0.1, "start": "rto"},
    }
    page = (out / "report.html").read_text()
    for words in ("target soft-log-prob:10", "mean over 4 warps", "bounded:band:6@18", "T = 1/10"):
        assert words in page
    other = command("ppl_cnn.sample", *given, "--warps", "5")
    assert other.returncode == 2
    assert "warps 4, not 5" in other.stderr
