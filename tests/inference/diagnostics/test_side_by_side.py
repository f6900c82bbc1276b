import json

import numpy as np
import pytest

from ppl_cnn.errors import FileError, MismatchError, RunFolderError
from ppl_cnn.inference.diagnostics.diagnose import Diagnosis
from ppl_cnn.inference.diagnostics.side_by_side import SideBySide
from ppl_cnn.inference.runs.record import unit_folder


def recorded(folder, units, record=None, **config):
    """A run's folder with its record alone."""
    folder.mkdir()
    own = {"kind": "sampling", "units": units}
    (folder / "run.json").write_text(json.dumps({"config": own | config, **(record or {})}))
    return folder


@pytest.mark.parametrize(
    ("units", "others", "matched", "alone", "other_alone"),
    [
        (["a:0", "a:1"], ["a:1", "a:2"], [("a:1", "a:1")], ("a:0",), ("a:2",)),
        # The centre lies elsewhere on the map of a larger image.
        (["a:0@6,6", "b:0@1,1"], ["a:0@7,7", "b:1@1,1"], [("a:0@6,6", "a:0@7,7")], None, None),
        # Two places of a filter can't be told from each other by the channel alone.
        (["a:0@0,0", "a:0@1,1"], ["a:0@1,1", "a:0@2,2"], [("a:0@1,1", "a:0@1,1")], None, None),
        (["fc8:3", "x:1"], ["head:9", "y:1"], [("fc8:3", "head:9")], ("x:1",), ("y:1",)),
        (["a:0"], ["b:1"], [("a:0", "b:1")], (), ()),
    ],
)
def test_units_match_by_name_channel_or_class(tmp_path, units, others, matched, alone, other_alone):
    one = recorded(tmp_path / "one", units, {"classes": {"fc8:3": "ox"}})
    other = recorded(tmp_path / "other", others, {"classes": {"head:9": "ox"}})
    found = SideBySide.of(one, other)
    assert list(found.matched) == matched
    if alone is not None:
        assert (found.alone, found.other_alone) == (alone, other_alone)


def test_runs_without_a_common_unit_are_refused(tmp_path, refused):
    one = recorded(tmp_path / "one", ["a:0", "a:1"])
    other = recorded(tmp_path / "other", ["b:0", "b:1", "b:2", "b:3", "b:4"])
    with refused("a:0, a:1", "b:0, b:1, b:2 and 2 more", kind=MismatchError):
        SideBySide.of(one, other)


def test_runs_of_other_kinds_are_refused(tmp_path, refused):
    one = recorded(tmp_path / "one", ["a:0"])
    with refused(str(tmp_path / "nowhere"), kind=RunFolderError):
        SideBySide.of(one, tmp_path / "nowhere")
    with refused(str(tmp_path / "trained"), kind=RunFolderError):
        SideBySide.of(recorded(tmp_path / "trained", ["a:0"], kind="training"), one)


def test_settings_and_versions_that_differ_are_listed(tmp_path):
    opened = {"model": "resnet50", "weights": "plain.pt"}
    one = recorded(
        tmp_path / "one",
        ["a:0", "a:1"],
        {"draws": 5, "versions": {"jax": "1", "numpy": "2"}, "opened": opened},
        **{"temperature": 1.0, "init": "two-sided", "weights": "aa", "block": 3, "chains": 4},
    )
    other = recorded(
        tmp_path / "other",
        ["a:0", "a:1"],
        {"draws": 5, "versions": {"jax": "1", "numpy": "3"}, "opened": {"weights": "robust.pt"}},
        **{"temperature": 0.1, "init": "two-sided:rto", "weights": "bb", "block": 7, "size": 64},
    )
    found = [tuple(each) for each in SideBySide.of(one, other).differences]
    assert found == [
        ("temperature", 1.0, 0.1),
        ("weights", "aa", "bb"),
        ("chains", 4, None),
        ("size", None, 64),
        ("weights, as opened", "plain.pt", "robust.pt"),
        ("version of numpy", "2", "3"),
    ]


def test_the_weights_of_other_units_do_not_count(tmp_path):
    one = recorded(tmp_path / "one", ["a:0", "a:1"], weights="aa")
    other = recorded(tmp_path / "other", ["a:0", "a:2"], weights="bb")
    assert SideBySide.of(one, other).differences == ()


def test_pairs_are_diagnosed_and_compared(tmp_path, write_run):
    units = ["a:0", "a:1"]
    one = recorded(tmp_path / "one", units, reference="white:10")
    other = recorded(tmp_path / "other", units, reference="white:10")
    noise = np.random.default_rng(0).normal(size=(2, 2, 20, 4, 4, 1)).astype(np.float32)
    own = {"unit": units[0], "reference": "white:10"}
    write_run(one / unit_folder("a:0"), noise[0], config=own)
    write_run(other / unit_folder("a:0"), noise[1], config=own)
    found = list(SideBySide.of(one, other).pairs())
    assert isinstance(found[0].one, Diagnosis)
    assert found[0].comparison is not None
    figures = {each.name: (each.one, each.other) for each in found[0].figures}
    assert figures["draws"] == ("2 x 20", "2 x 20")
    assert figures["mean response"][0] == figures["mean response"][1]  # the fixture's response
    assert isinstance(found[1].one, FileError)
    assert found[1].comparison is None
    assert found[1].figures == []


def test_other_densities_are_shown_and_not_compared(tmp_path, write_run):
    noise = np.random.default_rng(0).normal(size=(2, 20, 4, 4, 1)).astype(np.float32)
    one = write_run(tmp_path / "one", noise, config={"temperature": 1.0})
    other = write_run(tmp_path / "other", noise, config={"temperature": 0.1})
    (pair,) = SideBySide.of(one, other).pairs()
    assert isinstance(pair.other, Diagnosis)
    assert pair.comparison is None
