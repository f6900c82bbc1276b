import json

import pytest

from ppl_cnn.errors import RunFolderError
from ppl_cnn.inference.runs.folder import RunFolder

CONFIG = {"kind": "sampling", "seed": 0, "init": "rto"}


def claim(path, **settings):
    return RunFolder.claim(path, CONFIG | settings, "the command")


def test_a_run_makes_its_folder_and_opens_it_again(tmp_path):
    path = tmp_path / "runs" / "one"
    with claim(path) as folder:
        folder.update(draws=10)
    record = json.loads((path / "run.json").read_text())
    assert (record["config"], record["command"], record["draws"]) == (CONFIG, "the command", 10)
    with RunFolder.claim(path, CONFIG, "another command") as folder:
        assert folder.record == record


def test_a_process_that_doesnt_write_leaves_the_folder_alone(tmp_path):
    with RunFolder.claim(tmp_path / "run", CONFIG, "the command", writer=False):
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "argument", "value"), [("seed", "seed", 1), ("init", "start", "zero")]
)
def test_another_runs_folder_is_refused(key, argument, value, tmp_path, refused):
    with claim(tmp_path):
        pass
    facts = (tmp_path, f"{argument} {CONFIG[key]}", value, "`out`")
    with refused(*facts, kind=RunFolderError, path=tmp_path), claim(tmp_path, **{key: value}):
        pass


def test_a_folder_of_other_files_is_refused(tmp_path, refused):
    (tmp_path / "notes.txt").write_text("")
    facts = (tmp_path, "notes.txt", "`out`")
    with refused(*facts, kind=RunFolderError, path=tmp_path), claim(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


def test_hidden_files_are_no_other_files(tmp_path):
    (tmp_path / ".hidden").write_text("")
    with claim(tmp_path):
        assert (tmp_path / "run.json").exists()


def test_a_folder_that_cant_be_made_is_refused(tmp_path, refused):
    path = tmp_path / "file" / "run"
    path.parent.write_text("")
    with refused(path, "Not a directory", kind=RunFolderError, path=path), claim(path):
        pass


def test_a_units_folder_belongs_to_its_run(tmp_path, refused):
    path = tmp_path / "run" / "conv5-12"
    with claim(path, part_of="run"):
        pass
    with refused(path, tmp_path / "run", kind=RunFolderError, path=path), claim(path):
        pass


def test_a_renamed_runs_stores_are_its_own(tmp_path):
    with claim(tmp_path, part_of="before") as folder:
        assert folder.made({"config": CONFIG | {"part_of": "after"}})
        assert not folder.made({"config": CONFIG | {"part_of": "before", "seed": 1}})
        assert not folder.made({})
