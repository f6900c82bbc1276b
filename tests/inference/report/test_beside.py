import json

import pytest

from ppl_cnn.inference.report.beside import side_by_side
from ppl_cnn.inference.runs.record import unit_folder

UNITS = ["conv5:12", "conv5:<b>3", "conv5:40"]


@pytest.fixture
def runs(tmp_path, write_run, noise):
    """Two runs at two temperatures; the first has a unit more, the other lacks one's draws."""
    folders = []
    for name, units, temperature in (("cold", UNITS, 0.1), ("warm", UNITS[:2], 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        config = {"kind": "sampling", "units": units, "temperature": temperature}
        (folder / "run.json").write_text(json.dumps({"config": config}))
        own = {"unit": UNITS[0], "temperature": temperature, "reference": "white:10"}
        write_run(folder / unit_folder(UNITS[0]), noise(4, 40), 1.0, own)
        folders.append(folder)
    return folders


def test_two_runs_stand_in_two_columns(runs, parsed):
    path = side_by_side(*runs)
    assert path == runs[0] / "beside-warm.html"
    page = parsed(path.read_text())
    assert "cold beside warm" in page.text
    assert "temperature0.11.0" in page.text.replace("\n", "")
    assert "Only cold has 1 of the units" in page.text
    assert [attrs["alt"] for attrs in page.all("img")] == ["Stein mean", "One draw"] * 2
    assert page.source.count('class="verdict') == 2
    assert len(page.missing) == 2
    assert "<b>" not in page.source
    assert "T = 1/10" in page.text


def test_a_run_beside_itself_differs_in_nothing(runs, parsed):
    page = parsed(side_by_side(runs[0], runs[0]).read_text())
    assert "All settings of both runs are the same" in page.text
    assert "Beside another run" in page.text
