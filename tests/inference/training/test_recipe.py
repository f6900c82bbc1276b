from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ppl_cnn.data.augmentation import Augmentation
from ppl_cnn.errors import ArgumentError, FileError, UnknownNameError
from ppl_cnn.inference.training.recipe import RECIPES, Recipe, recipe_names, recipe_summaries
from ppl_cnn.inference.training.stages import OBJECTIVES, Length, Stage

VALUES = {
    "network": "lenet",
    "data": "fashion-embedded",
    "stages": "generative:2,discriminative:1@0.003",
    "batch_size": 64,
    "rate": 0.01,
    "schedule": "cosine",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "seed": 3,
}


def toml(values) -> str:
    return "".join(
        f'{key} = "{value}"\n' if isinstance(value, str) else f"{key} = {str(value).lower()}\n"
        for key, value in values.items()
    )


@pytest.fixture
def written(tmp_path):
    """A function of changed values to a recipe's file; None takes one away."""

    def write(**changes) -> str:
        values = {key: value for key, value in (VALUES | changes).items() if value is not None}
        path = tmp_path / "recipe.toml"
        path.write_text(toml(values))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("generative:8", [("generative", 0, (8, "epochs"), 0.01, "cosine")]),
        ("discriminative:4@0.003", [("discriminative", 1, (4, "epochs"), 0.003, "cosine")]),
        ("hybrid:0.25:4", [("hybrid:0.25", 0.25, (4, "epochs"), 0.01, "cosine")]),
        (
            "generative:8epochs, discriminative:500steps@3e-3:constant,hybrid:.5:12.5%@1:cosine",
            [
                ("generative", 0, (8, "epochs"), 0.01, "cosine"),
                ("discriminative", 1, (500, "steps"), 0.003, "constant"),
                ("hybrid:.5", 0.5, (12.5, "%"), 1.0, "cosine"),
            ],
        ),
        ("generative:50000images", [("generative", 0, (50_000, "images"), 0.01, "cosine")]),
    ],
)
def test_stages_are_objectives_with_lengths_rates_and_schedules(text, stages):
    expected = tuple(Stage(*stage[:2], Length(*stage[2]), *stage[3:]) for stage in stages)
    assert Stage.parse_all(text, 0.01, "cosine") == expected


@pytest.mark.parametrize(
    "part",
    [
        *("", "generative", "generative:", "generative:0", "generative:-1", "generative:1.5"),
        *("generative:x", ":3", "contrastive:3", "Generative:3", "generative:3@0"),
        *("generative:3@-1", "generative:3@nan", "generative:3@inf", "generative:3@fast"),
        *("generative:3@", "generative:3@0.1:", "generative:3@0.1:linear", "generative:3@:cosine"),
        *("generative:2.5steps", "generative:3days", "generative:101%", "generative:0%"),
        *("hybrid:3", "hybrid:0:3", "hybrid:1:3", "hybrid:-1:3", "hybrid:nan:3", "hybrid:x:3"),
        *("hybrid:0.5", "generative:0.5:3", "hybrid:0.5:"),
    ],
)
def test_other_stages_are_refused(part, refused):
    for text in (part, f"generative:1,{part}"):
        with refused(repr(part), *OBJECTIVES, kind=ArgumentError, argument="stages"):
            Stage.parse_all(text, 0.01, "cosine")


@pytest.mark.parametrize(
    ("length", "total", "steps"),
    [
        *(("3", "", 300), ("3epochs", "", 300), ("70steps", "", 70), ("70steps", "5", 70)),
        *(("6400images", "", 100), ("6450images", "", 100), ("1images", "", 1)),
        *(("65%", "5", 325), ("12.5%", "80steps", 10), ("35%", "101steps", 35)),
        ("50%", "12800images", 100),
    ],
)
def test_a_length_in_steps(length, total, steps):
    recipe = replace(Recipe(**VALUES), stages=f"generative:{length}", total=total)
    assert recipe.stage_steps(epoch=100) == [steps]  # of 64 images each


@pytest.mark.parametrize("total", ["50%", "0", "many", "-3"])
def test_a_total_that_is_none_is_refused(total, refused):
    with refused(f"`total={total}`", kind=ArgumentError, argument="total"):
        replace(Recipe(**VALUES), total=total)


def test_per_cent_of_no_total_is_refused(refused):
    with refused("generative:65%,discriminative:35%", kind=ArgumentError, argument="total"):
        replace(Recipe(**VALUES), stages="generative:65%,discriminative:35%")


def test_augmentation_is_checked_with_the_recipe(written, refused):
    assert Recipe.read(written(augment="crop+flip")).augment == "crop+flip"
    with refused("blur"):
        Recipe.read(written(augment="blur"))


def test_the_shipped_recipes_are_read_by_name():
    assert recipe_names() == sorted(path.stem for path in RECIPES.iterdir())
    for name in recipe_names():
        recipe = Recipe.read(name)
        assert recipe.network == name.removesuffix("-imagenet")
        objectives = [stage.objective for stage in recipe.parsed_stages]
        assert objectives == ["generative", "discriminative"]


def test_a_shipped_recipe_has_a_summary_of_one_sentence():
    summaries = recipe_summaries()
    assert list(summaries) == recipe_names()
    for summary in summaries.values():
        assert summary.endswith(")"), "the first line breaks off in the midst of a sentence"


def test_a_recipe_of_the_users_own_is_read_from_its_file(written):
    assert Recipe.read(written()) == Recipe(**VALUES)
    assert Recipe.read(written(total="70epochs")).total == "70epochs"


def test_overrides_replace_values_and_none_leaves_them(written):
    recipe = Recipe.read(written(), batch_size=32, seed=None, rate=0.5, network="alexnet-fashion")
    expected = replace(Recipe(**VALUES), batch_size=32, rate=0.5, network="alexnet-fashion")
    assert recipe == expected


def test_a_whole_number_will_do_for_a_real_one(written):
    assert Recipe.read(written(rate=1, momentum=0)).rate == 1.0


def test_missing_recipes_are_refused(tmp_path, refused):
    path = str(tmp_path / "none.toml")
    with refused(path, *recipe_names(), kind=UnknownNameError, name=path):
        Recipe.read(path)


@pytest.mark.parametrize("content", [b"network = ", b"\xff\xfe", b"{}"])
def test_files_that_are_no_toml_are_refused(tmp_path, content, refused):
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with refused(path, kind=FileError, path=path):
        Recipe.read(str(path))


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"network": None}, "network"),
        ({"dropout": 0.5}, "dropout"),
        ({"stages": None, "x": 1}, "x"),
    ],
)
def test_keys_that_are_missing_or_left_over_are_refused(written, changes, wrong, refused):
    path = written(**changes)
    with refused(path, wrong, kind=FileError, path=Path(path)):
        Recipe.read(path)


def test_what_a_file_does_not_give_has_the_default(written):
    needed = {"network": "lenet", "data": "mnist", "stages": "generative:1"}
    others = dict.fromkeys(VALUES.keys() - needed.keys())
    assert Recipe.read(written(**needed, **others)) == Recipe(**needed)
    assert Recipe(**needed).rate == 0.01


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network", 3),
        ("batch_size", 64.0),
        ("batch_size", "64"),
        ("batch_size", True),
        ("rate", "fast"),
        ("rate", True),
        ("momentum", "0.9"),
        ("seed", 0.5),
    ],
)
def test_values_of_another_type_are_refused(written, key, value, refused):
    with refused(f"`{key}`", repr(value), kind=ArgumentError, argument=key):
        Recipe.read(written(**{key: value}))


@pytest.mark.parametrize(
    ("key", "value", "facts"),
    [
        ("stages", "generative", ["'generative'"]),
        ("schedule", "linear", ["'linear'", "cosine, constant"]),
        ("switch", "ess", ["`switch=ess`", "ess:1.5"]),
        ("switch", "ess:0", ["ess:0"]),
        ("switch", "ess:-1", ["ess:-1"]),
        ("switch", "ess:inf", ["ess:inf"]),
        ("switch", "loss:0.5", ["loss:0.5"]),
        ("reference_bank", -1, ["-1", "at least 0"]),
        ("reference_decay", 0.0, ["0.0", "(0, 1]"]),
        ("dtype", "float16", ["'float16'", "float32, bfloat16"]),
        ("batch_size", 0, ["0", "at least 1"]),
        ("momentum", 1.0, ["1.0", "[0, 1)"]),
        ("momentum", -0.1, ["-0.1", "[0, 1)"]),
        ("weight_decay", 1.0, ["1.0", "[0, 1)"]),
        ("weight_decay", -1e-3, ["-0.001", "[0, 1)"]),
        ("rate", 0.0, ["0.0", "positive"]),
        ("rate", float("inf"), ["inf", "positive and finite"]),
        ("seed", -1, ["-1", "at least 0"]),
    ],
)
def test_values_out_of_range_are_refused(written, key, value, facts, refused):
    """By the argument's name, or as an unknown name among those that there are."""
    by_name = key in ("schedule", "dtype")
    said = {"name": value} if by_name else {"argument": key}
    kind = UnknownNameError if by_name else ArgumentError
    with refused(f"`{key}", *facts, kind=kind, **said):
        Recipe.read(written(**{key: value}))
    with refused(f"`{key}", *facts, kind=kind, **said):
        Recipe.read(written(), **{key: value})


def test_texts_are_parsed_when_the_recipe_is_made():
    recipe = Recipe(**VALUES | {"switch": "ess:2.5", "augment": "crop+flip"})
    assert recipe.parsed_stages is recipe.parsed_stages
    assert recipe.parsed_total is None
    assert recipe.least_ess == 2.5
    assert recipe.augmentation == Augmentation("crop", flip=True)
    assert replace(recipe, rate=0.5).parsed_stages[0].rate == 0.5


def test_a_record_has_the_texts(written):
    """An older run's `run.json` is compared with this, to the letter."""
    assert asdict(Recipe(**VALUES)) == VALUES | {
        "train": "train",
        "test": "test",
        "total": "",
        "switch": "none",
        "reference_bank": 0,
        "reference_decay": 0.9,
        "augment": "none",
        "dtype": "float32",
    }
