import base64
import csv
import hashlib
import io
import json
import math
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
import zarr
from matplotlib import pyplot
from PIL import Image

from ppl_cnn.inference.report.page import build_report
from ppl_cnn.inference.report.pictures import Stretched, image_tag, jpeg
from ppl_cnn.inference.runs.record import unit_folder

CHAINS, DRAWS, SHAPE = 3, 40, (6, 5, 3)
RECORD = {
    "preprocessing": {"mean": [104.0, 117.0, 123.0], "scale": 1.0, "order": "BGR"},
    "seconds": {"compile": 1.5, "warmup": 2.0, "sampling": 4.0},
    "gradients": {"warmup": 1000, "sampling": 2400},
    "versions": {"numpyro": "0.22.0"},
}


def noise(chains, draws, shape=(5, 4, 1)):
    return 10 * np.random.default_rng(0).normal(size=(chains, draws, *shape)).astype(np.float32)


class Page(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text, self.source = [], "", source
        self.scripts, self.viewers = [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1] == ("script", {}) and self.cdata_elem:
            self.scripts.append(data)
        elif self.tags and self.tags[-1][0] == "script" and self.cdata_elem:
            self.viewers.append(json.loads(data))
        else:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def image(self, alt):
        (attrs,) = [attrs for attrs in self.all("img") if attrs["alt"] == alt]
        content = base64.b64decode(attrs["src"].partition("base64,")[2])
        return np.asarray(Image.open(io.BytesIO(content)))


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_run):
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
    assert "://" not in page.source
    (policy,) = [tag["content"] for tag in page.all("meta") if "http-equiv" in tag]
    assert policy.startswith("default-src 'none'; img-src data:;")
    # Of all scripts, the browser may run this one only.
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_it_opens_and_closes_every_element(page):
    void = {"meta", "link", "img", "input", "hr", "br"}
    opened = [tag for tag, _ in page.tags if tag not in void]
    assert all(page.source.count(f"</{tag}>") == opened.count(tag) for tag in set(opened))


def test_it_shows_every_chain(page):
    alts = [attrs["alt"] for attrs in page.all("img")]
    for name in ("Draw", "Running mean", "Stein mean"):
        assert alts.count(f"{name} of each chain") == 1
    assert all(alts)
    (viewer,) = page.viewers
    assert viewer["chains"] == CHAINS
    assert len(viewer["modes"]["draw"]["labels"]) == 32
    assert page.text.index("Chain by chain") < page.text.index("Largest R-hat")


def test_every_pixel_has_a_map(page):
    alts = [attrs["alt"] for attrs in page.all("img")]
    assert "R-hat of every pixel" in alts
    assert "Bulk ESS of every pixel" in alts
    assert f"of {math.prod(SHAPE)} values miss it" in page.text


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


def test_a_young_run_has_a_page(tmp_path, write_run):
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
def test_odd_runs_have_a_page(tmp_path, image, values, words, write_run):
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


# Several units

UNITS = ["conv5:12", "conv5:3@mean", "class:<b>goldfish", "conv5:40", "conv5:41"]


@pytest.fixture
def several(tmp_path, write_run):
    """Units judged short, bad, too young, damaged and not yet begun."""
    parts = [tmp_path / unit_folder(unit) for unit in UNITS]
    write_run(parts[0], noise(4, 40), 1.0, {"unit": "conv5:12@3,3"})
    write_run(parts[1], noise(2, 30), config={"unit": UNITS[1]}, response=np.ones((2, 30)))
    write_run(parts[2], noise(4, 3), config={"unit": UNITS[2]})
    write_run(parts[3], noise(4, 30), config={"unit": UNITS[3]})
    (parts[3] / "draws.zarr" / "zarr.json").write_text("{}")
    config = {"kind": "sampling", "model": "alexnet-fashion", "units": UNITS}
    (tmp_path / "run.json").write_text(json.dumps({"config": config, "command": "sample"}))
    return tmp_path


def test_a_page_of_several_units(several):
    page = Page(build_report(several).read_text())
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
    assert "The run holds 3 draws" in page.text
    assert "is no intact store" in page.text
    assert "has not been sampled yet" in page.text
    assert len(page.viewers) == 2
    assert (several / "conv5-12" / "summary.csv").exists()


def test_plots_are_those_of_the_units_in_most_trouble(several, monkeypatch):
    monkeypatch.setattr("ppl_cnn.inference.report.page._PLOTTED", 1)
    page = Page(build_report(several).read_text())
    assert [attrs["alt"] for attrs in page.all("img")].count("Traces: lp") == 1
    good, bad = page.source.index('id="conv5-12"'), page.source.index('id="conv5-3-at-mean"')
    assert good < bad < page.source.index("Traces: lp")
    assert f"python -m ppl_cnn.report {several / 'conv5-12'}" in page.text


def test_without_a_stein_mean(tmp_path, write_run):
    folder = write_run(tmp_path, noise(4, 40), config={"reference": "uniform"})
    shutil.rmtree(folder / "draws.zarr" / "stein")
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(folder / "draws.zarr")
    page = Page(build_report(folder).read_text())
    (option,) = [attrs for attrs in page.all("input") if attrs.get("value") == "stein"]
    assert "disabled" in option
    assert "The reference uniform has no Stein mean." in page.text
    assert "Stein's identity" not in page.text
    assert {path.stem for path in (folder / "images").iterdir()} == {"draws", "means", "mean"}


def test_a_large_sheet_of_noise_becomes_a_jpeg():
    """Pillow fails on such when it is to optimize them."""
    pixels = np.random.default_rng(0).integers(0, 256, (528, 528, 3), np.uint8)
    for quality in (90, 30):
        with Image.open(io.BytesIO(jpeg(pixels, quality))) as image:
            assert image.size == (528, 528)


def test_another_kind_of_run_is_refused(tmp_path, refused, write_run):
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


def test_the_command_prints_the_path(tmp_path, write_run):
    write_run(tmp_path, noise(2, 8))
    done = command(str(tmp_path))
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'report.html'}\n")
    assert "Warning" not in done.stderr


def test_a_folder_without_a_run_is_one_sentence(tmp_path):
    done = command(str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path} holds no run.json.")


def test_the_page_says_which_density_was_sampled(tmp_path, write_run):
    config = {"kernel": "split", "target": "soft-log-prob:10", "warps": 4, "smooth": 3.0}
    config |= {"size": 192, "reference": "bounded:spectral@18", "temperature": 0.001}
    folder = write_run(
        tmp_path / "run", noise(2, 8), config=config, record={"recipe": {"name": "vivid"}}
    )
    text = Page(build_report(folder).read_text()).text
    parts = ["2 chains × 8 draws", "split kernel", "target soft-log-prob:10"]
    parts += ["mean over 4 warps with noise 3", "at 192x192", "reference bounded:spectral@18"]
    assert " · ".join([*parts, "T = 1/1000"]) in text
    assert "recipevivid" in text  # cells of a table
    sentence = "f the soft-log-prob:10 of conv5:12, mean over 4 warps with noise 3, at 192x192, "
    assert f"{sentence}T = 1/1000, q = bounded:spectral@18." in text


def test_a_page_of_an_older_run_says_what_its_record_does(tmp_path, write_run):
    config = {"kernel": "nuts", "target": "logit", "reference": "white:10", "temperature": 0.3}
    folder = write_run(tmp_path / "run", noise(2, 8), config=config)
    text = Page(build_report(folder).read_text()).text
    assert "2 chains × 8 draws · nuts kernel · reference white:10 · T = 0.3" in text
    assert "f the logit of conv5:12, T = 0.3, q = white:10." in text
