import json

import numpy as np
import pytest

from ppl_cnn.inference.report.page import report
from ppl_cnn.inference.runs.exemplars import Exemplars
from ppl_cnn.inference.runs.record import unit_folder

UNITS = [f"conv5:{channel}@6,6" for channel in range(3)]


@pytest.fixture
def layer(tmp_path, write_run, noise, monkeypatch):
    """A layer of three units, of which the last isn't sampled yet."""
    monkeypatch.setattr("ppl_cnn.inference.report.page.FEWEST", 3)
    for number, unit in enumerate(UNITS[:2]):
        response = np.random.default_rng(number).normal(number, size=(4, 40)).astype(np.float32)
        config = {"unit": unit, "part_of": "layer"}
        write_run(tmp_path / unit_folder(unit), noise(4, 40), 1.0, config, response=response)
    config = {"kind": "sampling", "model": "alexnet-fashion", "units": UNITS}
    record = {"config": config, "command": "python -m ppl_cnn.sample"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    return tmp_path


def test_an_atlas_has_cards_that_lead_to_pages(layer, parsed):
    page = parsed(report(layer).read_text())
    assert page.text.strip().startswith("3 units of conv5, alexnet-fashion")
    links = [attrs["href"] for attrs in page.all("a")]
    assert links == [*(f"{unit_folder(unit)}/report.html" for unit in UNITS[:2]), "#missing"]
    assert "conv5:2@6,6: This unit has not been sampled yet" in page.missing[0]
    cards = [attrs for attrs in page.all("li") if "data-trouble" in attrs]
    assert float(cards[0]["data-response"]) == pytest.approx(0, abs=0.3)
    assert float(cards[1]["data-response"]) == pytest.approx(1, abs=0.3)
    assert "data-response" not in cards[2]
    assert len(page.viewers) == 0


def test_a_unit_of_an_atlas_has_a_page_without_plots(layer, parsed):
    report(layer)
    page = parsed((layer / unit_folder(UNITS[0]) / "report.html").read_text())
    assert page.text.strip().startswith("conv5:0@6,6 of alexnet-fashion")
    links = [attrs["href"] for attrs in page.all("a")]
    assert links == ["../report.html", f"../{unit_folder(UNITS[1])}/report.html"]
    assert f"python -m ppl_cnn.report {layer / unit_folder(UNITS[0])}" in page.text
    assert len(page.viewers) == 1


def test_exemplars_stand_beside_the_draws(layer, parsed):
    images = np.arange(9 * 20, dtype=np.uint8).reshape(9, 5, 4, 1)
    responses = np.linspace(9, 1, 9, dtype=np.float32)
    names = tuple(f"<b>{number}.jpg" for number in range(9))
    found = Exemplars(images, responses, names, ("ox",) * 9, "photos", 1234, "anywhere")
    found.save(layer / unit_folder(UNITS[0]))
    page = parsed(report(layer).read_text())
    cards = page.source.partition('class="cards"')[2].split("</li>")
    assert [card.count("<img") for card in cards[:3]] == [2, 1, 0]
    page = parsed((layer / unit_folder(UNITS[0]) / "report.html").read_text())
    np.testing.assert_array_equal(page.image("Exemplar 3: <b>2.jpg"), images[2, ..., 0])
    assert "9 of 1,234 images of photos" in page.text
    assert "8 ox, <b>1.jpg" in page.text
    assert "<b>" not in page.source


def test_pictures_of_an_atlas_take_few_bytes(layer, write_run, noise, monkeypatch):
    monkeypatch.setattr("ppl_cnn.inference.report.atlas._LARGEST", 1000)
    folder = layer / unit_folder(UNITS[2])
    write_run(folder, noise(2, 8, (60, 60, 3)), config={"unit": UNITS[2]})
    assert len(report(layer).read_text()) < 40_000  # of which script and style are most
