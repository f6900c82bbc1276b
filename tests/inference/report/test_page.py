import base64
import csv
import hashlib
import json
import math
import os
import shutil

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import zarr
from matplotlib import pyplot
from PIL import Image

import ppl_cnn
from ppl_cnn.errors import RunFolderError
from ppl_cnn.inference.diagnostics.diagnose import diagnose
from ppl_cnn.inference.diagnostics.pixel_maps import stored_maps
from ppl_cnn.inference.diagnostics.scan import read
from ppl_cnn.inference.diagnostics.verdict import sentences as say
from ppl_cnn.inference.report.page import render, report

CHAINS, DRAWS, SHAPE = 3, 40, (6, 5, 3)
RECORD = {
    "preprocessing": {"mean": [104.0, 117.0, 123.0], "scale": 1.0, "order": "BGR"},
    "seconds": {"compile": 1.5, "warmup": 2.0, "sampling": 4.0},
    "gradients": {"warmup": 1000, "sampling": 2400},
    "versions": {"numpyro": "0.22.0"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_run, noise):
    folder = tmp_path_factory.mktemp("run") / "filter"
    stein = np.zeros(SHAPE)
    stein[1, 2] = [10.0, 0.0, -10.0]
    steps = np.full((CHAINS, DRAWS), 20, np.int32)
    image = noise(CHAINS, DRAWS, SHAPE)
    image[0] += 40  # the chains disagree
    write_run(folder, image, stein, {"unit": "<i>&5:1"}, RECORD, n_steps=steps)
    report(folder)
    return folder


def summary(folder):
    return list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def page(run, parsed):
    return parsed((run / "report.html").read_text())


def test_the_page_needs_nothing_from_outside(page):
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attrs.get(name, "data:").startswith("data:")
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert "://" not in page.source
    (policy,) = [tag["content"] for tag in page.all("meta") if "http-equiv" in tag]
    assert policy.startswith("default-src 'none'; img-src data:;")
    # The browser may run this script only.
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


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
    assert stored_maps(run, (CHAINS, DRAWS, *SHAPE)) is not None


def test_names_are_escaped(page):
    assert "<i>" not in page.source.replace('<i class="plot"', "")
    assert "<i>&5:1 of alexnet-fashion" in page.text


@pytest.mark.usefixtures("unplotted")
def test_names_of_folders_need_not_be_utf_8(tmp_path, write_run, noise, parsed):
    folder = tmp_path / os.fsdecode(b"caf\xe9 #1, 50%")
    write_run(folder, noise(2, 8, SHAPE), config={"model": f"runs/{folder.name}"})
    assert "caf\\udce9 #1, 50%" in parsed(report(folder).read_text("utf-8")).source


def test_the_cost_is_told(run, page):
    ess = float(summary(run)[0]["ess_bulk"])
    assert "gradients per effective draw" in page.text
    assert f"{2400 / ess:,.1f}" in page.text
    assert f"{CHAINS * DRAWS / 4.0:,.1f}" in page.text
    assert "n steps, mean20" in page.text
    assert "0.22.0" in page.text


def test_a_report_can_be_built_again_and_leaves_no_trace(run, parsed):
    text, settings = parsed((run / "report.html").read_text()).text, dict(matplotlib.rcParams)
    assert report(run) == run / "report.html"
    assert parsed((run / "report.html").read_text()).text == text
    assert dict(matplotlib.rcParams) == settings
    assert pyplot.get_fignums() == []


@pytest.mark.usefixtures("unplotted")
def test_a_diagnosis_is_rendered_without_a_folder(run, page, parsed):
    """As of draws in memory, whose arguments stay as Python has them."""
    draws = read(run).load()
    draws.attrs = {"config": {"unit": "conv5:12"}, "command": "ppl_cnn.draw"}
    shown = parsed(render(diagnose(draws)))
    assert shown.text.strip().startswith("conv5:12")
    assert "raise the temperature" in shown.text
    assert "raise the --temperature" in page.text
    assert "--warmup 200" in page.text
    assert "--temperature" not in shown.text
    assert [attrs["alt"] for attrs in shown.all("img")].count("Stein mean of each chain") == 1


@pytest.mark.usefixtures("unplotted")
def test_a_young_run_has_a_page(tmp_path, write_run, noise, parsed):
    folder = write_run(tmp_path, noise(2, 12))
    record = {
        "config": {"kind": "sampling", "unit": "f"},
        "command": "python -m ppl_cnn.sample",
        "draws": 500,
    }
    (folder / "run.json").write_text(json.dumps(record))
    text = parsed(report(folder).read_text()).text
    assert text.strip().startswith("f")
    assert "2 chains × 12 draws of 500" in text
    assert "far too few" in text


@pytest.mark.parametrize(
    ("image", "values", "words"),
    [
        pytest.param(
            *(lambda noise: noise(1, 150), {}, say.OneChain().sentence.split("(")[0]),
            marks=pytest.mark.long,
        ),
        pytest.param(
            *(lambda noise: noise(2, 4, (1, 1, 2)), {}, "draws are far too few"),
            marks=pytest.mark.long,
        ),
        (lambda noise: noise(2, 30), {"response": np.ones((2, 30))}, "the unit is dead"),
        pytest.param(
            lambda noise: np.repeat(noise(2, 1), 30, axis=1),
            {"response": np.repeat([[1.0], [2.0]], 30, axis=1)},
            "2 of 2 chains don't move",
            marks=pytest.mark.long,
        ),
        (lambda noise: np.nan * noise(2, 30), {}, say.NotFinite(60, 60).sentence.split(",")[0]),
        pytest.param(
            *(lambda noise: noise(2, 30), {"diverging": np.ones((2, 30), bool)}),
            "60 of 60 draws had",
            marks=pytest.mark.long,
        ),
    ],
    ids=["one chain", "four draws of a pixel", "constant", "still", "nan", "divergent"],
)
def test_odd_runs_have_a_page(tmp_path, image, values, words, write_run, noise, parsed):
    page = parsed(report(write_run(tmp_path, image(noise), **values)).read_text())
    assert words in page.text
    assert "nan" not in page.text.partition("Summary of all")[0]


@pytest.mark.usefixtures("unplotted")
def test_without_a_stein_mean(tmp_path, write_run, noise, parsed):
    folder = write_run(tmp_path, noise(4, 40), config={"reference": "uniform"})
    shutil.rmtree(folder / "draws.zarr" / "stein")
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(folder / "draws.zarr")
    page = parsed(report(folder).read_text())
    (option,) = [attrs for attrs in page.all("input") if attrs.get("value") == "stein"]
    assert "disabled" in option
    assert "The reference uniform has no Stein mean." in page.text
    assert "Stein's identity" not in page.text
    assert {path.stem for path in (folder / "images").iterdir()} == {"draws", "means", "mean"}


def test_another_kind_of_run_is_refused(tmp_path, refused, write_run, noise):
    folder = write_run(tmp_path, noise(2, 8), config={"kind": "training"})
    with refused("`python -m ppl_cnn.sample`", kind=RunFolderError, path=folder):
        report(folder)


@pytest.mark.usefixtures("unplotted")
def test_the_command_prints_the_path(tmp_path, write_run, noise, command):
    write_run(tmp_path, noise(2, 8))
    done = command("ppl_cnn.report", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'report.html'}\n")
    assert "Warning" not in done.stderr


def test_a_folder_without_a_run_is_one_sentence(tmp_path, command):
    done = command("ppl_cnn.report", tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr
    assert "run.json" in done.stderr


@pytest.mark.usefixtures("unplotted")
def test_the_page_says_which_density_was_sampled(tmp_path, write_run, noise, parsed):
    config = {"kernel": "split", "target": "soft-log-prob:10", "warps": 4, "smooth": 3.0}
    config |= {"size": 192, "reference": "bounded:spectral@18", "temperature": 0.001}
    folder = write_run(
        tmp_path / "run", noise(2, 8), config=config, record={"recipe": {"name": "vivid"}}
    )
    text = parsed(report(folder).read_text()).text
    parts = ["2 chains × 8 draws", "split kernel", "target soft-log-prob:10"]
    parts += ["mean over 4 warps with noise 3", "at 192x192", "reference bounded:spectral@18"]
    assert " · ".join([*parts, "T = 1/1000"]) in text
    assert "presetvivid" in text  # cells of a table
    sentence = "f the soft-log-prob:10 of conv5:12, mean over 4 warps with noise 3, at 192x192, "
    assert f"{sentence}T = 1/1000, q = bounded:spectral@18." in text


@pytest.mark.usefixtures("unplotted")
def test_a_page_of_an_older_run_says_what_its_record_does(tmp_path, write_run, noise, parsed):
    config = {"kernel": "nuts", "target": "logit", "reference": "white:10", "temperature": 0.3}
    folder = write_run(tmp_path / "run", noise(2, 8), config=config)
    text = parsed(report(folder).read_text()).text
    assert "2 chains × 8 draws · nuts kernel · reference white:10 · T = 0.3" in text
    assert "f the logit of conv5:12, T = 0.3, q = white:10." in text


@pytest.mark.usefixtures("unplotted")
def test_a_run_from_before_starts_were_stored_has_a_page(tmp_path, write_run, noise, parsed):
    text = parsed(report(write_run(tmp_path, noise(2, 40))).read_text()).text
    assert "Within and across starts" in text
    assert "with starts" not in text


@pytest.mark.usefixtures("unplotted")
def test_a_two_sided_tempered_run_has_its_sections(tmp_path, parsed):
    density = ppl_cnn.TiltedDensity(
        ppl_cnn.ScoreFunction(jnp.sum, (3, 3, 1)), ppl_cnn.WhiteNoise(1.0)
    )
    ppl_cnn.draw(
        density,
        kernel="tempered:2",
        chains=2,
        draws=20,
        warmup=20,
        start="two-sided:rto",
        out=tmp_path,
        progress=False,
    )
    page = parsed(report(tmp_path).read_text())
    assert "<h2>Two sides</h2>" in page.source
    assert "from optima" in page.text
    assert "<h2>Replicas</h2>" in page.source
