import json

import numpy as np
import pytest
from PIL import Image

from ppl_cnn.inference.report.page import report
from ppl_cnn.inference.runs.record import unit_folder

UNITS = ["conv5:12", "conv5:3@mean", "class:<b>goldfish", "conv5:40", "conv5:41"]


@pytest.fixture
def several(tmp_path, write_run, noise):
    """Units judged short, bad, too young, damaged and not yet begun."""
    parts = [tmp_path / unit_folder(unit) for unit in UNITS]
    write_run(parts[0], noise(4, 120), 1.0, {"unit": "conv5:12@3,3"})
    write_run(parts[1], noise(2, 30), config={"unit": UNITS[1]}, response=np.ones((2, 30)))
    write_run(parts[2], noise(4, 3), config={"unit": UNITS[2]})
    write_run(parts[3], noise(4, 30), config={"unit": UNITS[3]})
    (parts[3] / "draws.zarr" / "zarr.json").write_text("{}")
    config = {"kind": "sampling", "model": "alexnet-fashion", "units": UNITS}
    (tmp_path / "run.json").write_text(
        json.dumps({"config": config, "command": "python -m ppl_cnn.sample"})
    )
    return tmp_path


@pytest.mark.usefixtures("unplotted")
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


@pytest.mark.long
def test_plots_are_those_of_the_units_in_most_trouble(several, monkeypatch, parsed):
    monkeypatch.setattr("ppl_cnn.inference.report.several._PLOTTED", 1)
    page = parsed(report(several).read_text())
    assert [attrs["alt"] for attrs in page.all("img")].count("Traces: lp") == 1
    good, bad = page.source.index('id="conv5-12"'), page.source.index('id="conv5-3-at-mean"')
    assert good < bad < page.source.index("Traces: lp")
    assert f"python -m ppl_cnn.report {several / 'conv5-12'}" in page.text


CLASSES = {"fc8:1": "Trouser", "fc8:8": "<b>Bag"}
PICTURES = {"reference": "data:clothes"}


@pytest.fixture
def classes(tmp_path, write_run, noise):
    """A function of the record's fields to a run of two classes."""

    def classes(**fields):
        preprocessing = {"mean": [60.0], "scale": [1.0], "order": "grey"}
        record = {"classes": CLASSES, "preprocessing": preprocessing}
        for unit in CLASSES:
            images = noise(4, 40, (28, 28, 1))
            config = {"unit": unit, **PICTURES, **fields}
            write_run(tmp_path / unit_folder(unit), images, config=config, record=record)
        config = {"kind": "sampling", "model": "lenet", "units": [*CLASSES], **PICTURES, **fields}
        (tmp_path / "run.json").write_text(json.dumps({"config": config, **record}))
        return tmp_path

    return classes


def test_a_page_of_classes_begins_with_a_row_of_draws_each(classes, monkeypatch, parsed):
    monkeypatch.setattr("ppl_cnn.inference.report.several._PLOTTED", 0)
    folder = classes()
    page = parsed(report(folder).read_text())
    assert page.source.index('class="classes"') < page.source.index('class="cards"')
    assert page.image("Trouser: 10 draws").shape == (28, 10 * 28 + 9 * 2)
    assert page.image("<b>Bag: 10 draws").shape == (28, 10 * 28 + 9 * 2)
    assert [attrs["href"] for attrs in page.all("a")][:2] == ["#fc8-1", "#fc8-8"]
    assert "<b>" not in page.source
    with Image.open(folder / "images" / "classes.png") as image:
        assert image.height == 6 + 2 * (84 + 6)
        assert image.width > 10 * (84 + 6)
        assert "10 draws of each class" in image.text["Description"]
        right = np.asarray(image.convert("L"))[:, -6 - 10 * 90 + 6 :]
    # Gaps are white, and the name lies to the left of the row, in black.
    assert (right[:6] == 255).all()
    assert (right[90:96] == 255).all()
    # A card has nine draws.
    cards = page.source.partition('class="cards"')[2]
    assert cards.count("data:image/png") >= 2


def test_noise_has_no_page_of_classes(classes, monkeypatch):
    monkeypatch.setattr("ppl_cnn.inference.report.several._PLOTTED", 0)
    folder = classes(reference="white:10")
    assert 'class="classes"' not in report(folder).read_text()
    assert not (folder / "images").exists()
