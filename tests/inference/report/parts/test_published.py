"""The published setting of the same unit, at the end of a unit's page."""

import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.inference.runs.record import published_run

pytestmark = pytest.mark.usefixtures("unplotted")


@pytest.fixture
def run(tmp_path, write_run, noise):
    config = {"reference": "generator:clothes@0123456789abcdef", "unit": "conv5:12"}
    return write_run(tmp_path / "run", noise(2, 20), config=config)


def test_a_page_ends_with_the_published_setting(run, write_run, noise, parsed):
    stein = np.zeros((5, 4, 1), np.float32)
    stein[1, 2] = 7.0
    write_run(run / "published", noise(4, 60), stein, {"reference": "white:10"})
    page = parsed(ppl_cnn.report(run).read_text())
    assert page.text.count("The published setting") == 1
    end = page.text.partition("The published setting")[2]
    assert "q = white:10" in end
    assert "Not enough yet" in end
    assert page.source.rindex('alt="Stein mean"') > page.source.index("The published setting")
    assert (run / "published" / "images" / "stein.png").exists()
    other = parsed(ppl_cnn.report(run / "published").read_text())
    assert "The published setting" not in other.text


def test_a_page_without_it_says_nothing_and_with_a_damaged_one_why(run, write_run, noise):
    assert "The published setting" not in ppl_cnn.report(run).read_text()
    write_run(run / "published", noise(2, 3))
    end = ppl_cnn.report(run).read_text().partition("The published setting")[2]
    assert "3 draws" in end
    (run / "published" / "run.json").write_text("{}")
    end = ppl_cnn.report(run).read_text().partition("The published setting")[2]
    assert "run.json is damaged" in end


def test_a_unit_of_several_has_its_own(run):
    assert published_run(run, {}) == run / "published"
    assert published_run(run, {"part_of": "x"}) == run.parent / "published" / "run"
