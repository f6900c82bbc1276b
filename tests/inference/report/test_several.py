import json

import numpy as np
import pytest

from ppl_cnn.inference.report.page import report
from ppl_cnn.inference.runs.record import unit_folder

UNITS = ["conv5:12", "conv5:3@mean", "class:<b>goldfish", "conv5:40", "conv5:41"]


@pytest.fixture
def several(tmp_path, write_run, noise):
    """Units judged short, bad, too young, damaged and not yet begun."""
    parts = [tmp_path / unit_folder(unit) for unit in UNITS]
    write_run(parts[0], noise(4, 40), 1.0, {"unit": "conv5:12@3,3"})
    write_run(parts[1], noise(2, 30), config={"unit": UNITS[1]}, response=np.ones((2, 30)))
    write_run(parts[2], noise(4, 3), config={"unit": UNITS[2]})
    write_run(parts[3], noise(4, 30), config={"unit": UNITS[3]})
    (parts[3] / "draws.zarr" / "zarr.json").write_text("{}")
    config = {"kind": "sampling", "model": "alexnet-fashion", "units": UNITS}
    (tmp_path / "run.json").write_text(
        json.dumps({"config": config, "command": "python -m ppl_cnn.sample"})
    )
    return tmp_path


def test_a_page_of_several_units(several, parsed):
    page = parsed(report(several).read_text())
    assert page.text.strip().startswith("5 units of alexnet-fashion")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    links = [attrs["href"] for attrs in page.all("a") if attrs["href"] != "#units"]
    assert links == [f"#{unit_folder(unit)}" for unit in UNITS]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert [attrs["class"] for attrs in page.all("li") if "class" in attrs][:5] == [
        *("short", "bad", "missing", "missing", "missing")
    ]
    assert "class:<b>goldfish" in page.text
    assert "<b>" not in page.source
    young, damaged, unbegun = page.missing
    assert "3 draws" in young
    assert "--draws 4" in young
    assert "conv5-40/draws.zarr" in damaged
    assert "has not been sampled yet" in unbegun
    assert len(page.viewers) == 2
    assert (several / "conv5-12" / "summary.csv").exists()


def test_plots_are_those_of_the_units_in_most_trouble(several, monkeypatch, parsed):
    monkeypatch.setattr("ppl_cnn.inference.report.several._PLOTTED", 1)
    page = parsed(report(several).read_text())
    assert [attrs["alt"] for attrs in page.all("img")].count("Traces: lp") == 1
    good, bad = page.source.index('id="conv5-12"'), page.source.index('id="conv5-3-at-mean"')
    assert good < bad < page.source.index("Traces: lp")
    assert f"python -m ppl_cnn.report {several / 'conv5-12'}" in page.text
