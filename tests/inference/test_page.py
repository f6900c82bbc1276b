import base64
import csv
import io
import json
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from ppl_cnn.inference.page import build_report
from ppl_cnn.inference.pictures import Stretched, image_tag
from ppl_cnn.inference.store import DrawStore

CHAINS, DRAWS, SHAPE = 3, 40, (6, 5, 3)
RECORD = {
    "preprocessing": {"mean": [104.0, 117.0, 123.0], "scale": 1.0, "order": "BGR"},
    "seconds": {"compile": 1.5, "warmup": 2.0, "sampling": 4.0},
    "gradients": {"warmup": 1000, "sampling": 2400},
    "versions": {"numpyro": "0.22.0"},
}


def noise(chains, draws, shape=(5, 4, 1)):
    return 10 * np.random.default_rng(0).normal(size=(chains, draws, *shape)).astype(np.float32)


def write_run(folder, image, stein=0.0, config=None, record=None, **values):
    """A run's folder as the chain driver leaves it, of one block; what isn't given is unremarkable.

    Args:
        folder: made here.
        image: (chain, draw, row, col, channel).
        stein: of every chain, (row, col, channel) or a scalar.
        config: fields of the record's configuration, besides the usual.
        record: fields of the record, besides that.
        values: `response` and `sample_stats` (chain, draw).
    """
    chains, draws, *shape = image.shape
    scalars = np.random.default_rng(9).normal(size=(3, chains, draws)).astype(np.float32)
    given = dict(zip(("response", "lp", "energy"), scalars, strict=True))
    given["acceptance_rate"] = np.full((chains, draws), 0.9, np.float32)
    given["diverging"] = np.zeros((chains, draws), bool)
    given |= values
    response = given.pop("response")
    folder.mkdir(exist_ok=True)
    store = DrawStore(folder / "draws.zarr", draws)
    sizes = {dim: range(n) for dim, n in zip(("row", "col", "channel"), shape, strict=True)}
    types = {name: value.dtype.type for name, value in given.items()}
    store.create({"chain": range(chains), **sizes}, types, {})
    block = {"posterior/image": image, "posterior/response": response}
    block |= {f"sample_stats/{name}": value for name, value in given.items()}
    block["stein/image"] = np.zeros((chains, 1, *shape), np.float32) + np.float32(stein)
    store.write(0, 0, {**block, "stein/draws": np.asarray([draws])})
    usual = {"kind": "sampling", "model": "alexnet-fashion", "unit": "conv5:12", "warmup": 100}
    made = {"config": usual | (config or {}), "command": "python -m ppl_cnn.sample", "draws": draws}
    (folder / "run.json").write_text(json.dumps(made | (record or {})))
    return folder


class Page(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text, self.source = [], "", source
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def image(self, alt):
        (attrs,) = [attrs for attrs in self.all("img") if attrs["alt"] == alt]
        content = base64.b64decode(attrs["src"].partition("base64,")[2])
        return np.asarray(Image.open(io.BytesIO(content)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "filter"
    stein = np.zeros(SHAPE)
    stein[1, 2] = [10.0, 0.0, -10.0]
    steps = np.full((CHAINS, DRAWS), 20, np.int32)
    image = noise(CHAINS, DRAWS, SHAPE)
    write_run(folder, image, stein, {"unit": "<i>&5:1"}, RECORD, n_steps=steps)
    build_report(folder)
    return folder


def summary(folder):
    return list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def page(run):
    return Page((run / "report.html").read_text())


def test_the_page_needs_nothing_from_outside(page):
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attrs.get(name, "data:").startswith("data:")
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert not page.all("script")
    assert "://" not in page.source


def test_it_opens_and_closes_every_element(page):
    void = {"meta", "link", "img", "hr", "br"}
    opened = [tag for tag, _ in page.tags if tag not in void]
    assert all(page.source.count(f"</{tag}>") == opened.count(tag) for tag in set(opened))


def test_it_shows_every_chain(page):
    alts = [attrs["alt"] for attrs in page.all("img")]
    for chain in range(CHAINS):
        assert alts.count(f"Stein mean image of chain {chain}") == 1
        assert alts.count(f"Mean image of chain {chain}") == 1
        assert sum(alt.endswith(f"of chain {chain}") and "Draw" in alt for alt in alts) == 8
    assert all(alts)
    assert page.text.index("chain 2") < page.text.index("R-hat")


def test_plots_of_every_kind(page):
    alts = [attrs["alt"] for attrs in page.all("img")]
    for title in ("Traces", "Ranks", "Effective sample size"):
        shown = [alt.removeprefix(f"{title}: ") for alt in alts if alt.startswith(f"{title}: ")]
        assert shown[:3] == ["response", "lp", "energy"]
        assert len([name for name in shown if name.startswith("projections[")]) == 2
        assert len([name for name in shown if name.startswith("pixels[")]) == 1
    assert "Energy: energy" in alts
    assert "All quantities: rhat" in alts


def test_images_are_enlarged_squares_in_rgb(page):
    (stein,) = [attrs for attrs in page.all("img") if attrs["alt"] == "Stein mean"]
    assert (int(stein["width"]), int(stein["height"])) == (5 * 56, 6 * 56)
    pixels = page.image("Stein mean")
    assert pixels.shape == SHAPE
    # BGR (10, 0, -10) is white in blue and black in red; the mean is mid-grey.
    assert pixels[1, 2].tolist() == [0, 128, 255]
    assert pixels[0, 0].tolist() == [128, 128, 128]
    assert "±10 grey levels about the mean" in page.text


def test_files_beside_the_page(run):
    sizes, notes = {}, {}
    for path in (run / "images").iterdir():
        with Image.open(path) as image:
            sizes[path.name], notes[path.name] = image.size, image.text["Description"]
    assert set(sizes) == {"draws.png", "means.png", "steins.png", "mean.png", "stein.png"}
    assert sizes["draws.png"] == (8 * (5 * 19 + 6) - 6, 3 * (6 * 19 + 6) - 6)
    assert sizes["means.png"] == sizes["steins.png"] == (3 * (5 * 19 + 6) - 6, 6 * 19)
    assert sizes["stein.png"] == (5 * 56, 6 * 56)
    assert notes["stein.png"] == "black to white is ±10 grey levels about the mean"
    rows = summary(run)
    assert [row["quantity"] for row in rows[:3]] == ["response", "lp", "energy"]
    assert {"mean", "sd", "ess_bulk", "ess_tail", "r_hat"} <= set(rows[0])
    assert not list(run.rglob("*.partial"))


def test_names_are_escaped(page):
    assert "<i>" not in page.source.replace('<i class="plot"', "")
    assert "<i>&5:1 of alexnet-fashion" in page.text


def test_the_cost_is_told(run, page):
    ess = float(summary(run)[0]["ess_bulk"])
    assert "gradients per effective draw" in page.text
    assert f"{2400 / ess:,.1f}" in page.text
    assert f"{CHAINS * DRAWS / 4.0:,.1f}" in page.text
    assert "n steps, mean20" in page.text
    assert "0.22.0" in page.text


def test_a_report_can_be_built_again_and_leaves_no_trace(run):
    text, settings = Page((run / "report.html").read_text()).text, dict(matplotlib.rcParams)
    assert build_report(run) == run / "report.html"
    assert Page((run / "report.html").read_text()).text == text
    assert dict(matplotlib.rcParams) == settings
    assert pyplot.get_fignums() == []


def test_a_young_run_has_a_page(tmp_path):
    folder = write_run(tmp_path, noise(2, 12))
    record = {"config": {"kind": "sampling", "unit": "f"}, "command": "c", "draws": 500}
    (folder / "run.json").write_text(json.dumps(record))
    text = Page(build_report(folder).read_text()).text
    assert text.strip().startswith("f")
    assert "2 chains × 12 draws of 500" in text
    assert "Not yet enough" in text


@pytest.mark.parametrize(
    ("image", "values", "words"),
    [
        (noise(1, 30), {}, "One chain alone"),
        (noise(2, 4, (1, 1, 2)), {}, "too few draws"),
        (noise(2, 30), {"response": np.ones((2, 30))}, "unit is dead"),
        (
            np.repeat(noise(2, 1), 30, axis=1),
            {"response": np.repeat([[1.0], [2.0]], 30, axis=1)},
            "2 of 2 chains stand still",
        ),
        (np.full((2, 30, 5, 4, 1), np.nan, np.float32), {}, "60 of 60 draws aren't finite"),
        (noise(2, 30), {"diverging": np.ones((2, 30), bool)}, "saw a divergence"),
    ],
    ids=["one chain", "four draws of a pixel", "constant", "still", "nan", "divergent"],
)
def test_odd_runs_have_a_page(tmp_path, image, values, words):
    page = Page(build_report(write_run(tmp_path, image, **values)).read_text())
    assert words in page.text
    assert "nan" not in page.text.partition("Summary of all")[0]


def test_stretching():
    images = np.linspace(-20, 20, 4001).reshape(1, 4001, 1)
    stretched = Stretched.of(images, "grey")
    assert stretched.scale == 20
    assert stretched.pixels[0, [0, 1000, 2000, 3000, 4000], 0].tolist() == [0, 64, 128, 191, 255]
    assert Stretched.of(np.zeros((2, 2, 1)), "grey").pixels.tolist() == [[[128], [128]]] * 2
    faint = Stretched.of(images / 1e4, "grey")
    np.testing.assert_array_equal(faint.pixels, stretched.pixels)
    assert str(faint) == "black to white is ±0.002 grey levels about the mean"
    outlier = np.append(np.ones(999), 1e6).reshape(10, 100, 1)
    assert Stretched.of(outlier, "grey").scale == 1


def test_large_images_stay_small():
    pixels = np.random.default_rng(0).integers(0, 256, (163, 163, 3), np.uint8)
    page = Page(image_tag(pixels, "noise", 112))
    (attrs,) = page.all("img")
    assert attrs["src"].startswith("data:image/jpeg")
    assert (attrs["width"], attrs["height"]) == ("163", "163")
    assert len(attrs["src"]) < pixels.size
    assert np.abs(page.image("noise") - pixels.astype(float)).mean() < 10


def test_another_kind_of_run_is_refused(tmp_path, refused):
    folder = write_run(tmp_path, noise(2, 8), config={"kind": "training"})
    with refused("no run of `python -m ppl_cnn.sample`"):
        build_report(folder)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "ppl_cnn.report", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_the_path(tmp_path):
    write_run(tmp_path, noise(2, 8))
    done = command(str(tmp_path))
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'report.html'}\n")
    assert "Warning" not in done.stderr


def test_a_folder_without_a_run_is_one_sentence(tmp_path):
    done = command(str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"error: {tmp_path} is no run's folder: it holds no run.json.\n"
