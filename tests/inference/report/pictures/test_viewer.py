import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from ppl_cnn.inference.diagnostics.scan import Scan
from ppl_cnn.inference.diagnostics.stein import SteinMeans
from ppl_cnn.inference.report.pictures.album import Tones
from ppl_cnn.inference.report.pictures.viewer import Sheets, modes, viewer_html

RGB = Tones("RGB")


def scanned(chains, shown, shape):
    random = np.random.default_rng(0)
    images = 10 * random.standard_normal((chains, shown, *shape), np.float32)
    counts = np.arange(1, shown + 1, dtype=np.float32)[:, None, None, None]
    running = np.cumsum(images, axis=1) / counts
    none = np.zeros((chains, shown, 0))
    mean = running[:, -1].astype(np.float64)
    draws = 10 * np.arange(shown)
    return Scan(none, none.astype(np.float32), np.zeros((0, 3), int), mean, images, running, draws)


def data(source):
    return json.loads(source.partition('type="application/json">')[2].partition("</script>")[0])


def test_a_sheet_holds_every_chain_at_its_place():
    scan = scanned(5, 3, (6, 20, 3))
    sheets = Sheets.fitting(modes(scan, None, RGB), RGB, 10**6)
    found = data(viewer_html(sheets, ident="u", chains=5, draws=30, no_stein="no Stein mean"))
    assert (found["size"], found["pitch"], found["columns"]) == ([20, 6], [32, 16], 3)
    draw = found["modes"]["draw"]
    assert draw["labels"] == ["draw 0", "draw 10", "draw 20"]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(draw["sheets"][1]))))
    scale = float(re.search(r"±(\S+) grey levels", draw["notes"][1])[1])
    for chain in range(5):
        top, left = 16 * (chain // 3), 32 * (chain % 3)
        shown = sheet[top : top + 6, left : left + 20].astype(float)
        expected = np.clip(scan.shown[chain, 1] / scale, -1, 1) * 127.5 + 127.5
        assert np.abs(shown - expected).max() <= 0.51


def test_stein_means_are_shown_up_to_each_draws_block():
    scan = scanned(2, 4, (4, 4, 1))
    running = np.random.default_rng(1).standard_normal((2, 2, 4, 4, 1), np.float32)
    steins = SteinMeans(running, np.asarray([15, 31]), np.asarray([0, 0, 1, 1]))
    sheets = Sheets.fitting(modes(scan, steins, Tones("grey")), Tones("grey"), 10**6)
    found = data(viewer_html(sheets, ident="u", chains=2, draws=31, no_stein=""))["modes"]["stein"]
    assert found["labels"] == ["draws 0–14"] * 2 + ["draws 0–30"] * 2
    assert found["step"] == [0, 0, 1, 1]
    assert len(found["sheets"]) == 1  # the last one is an image of the page


@pytest.mark.parametrize(
    ("limit", "kinds", "least", "chains"),
    [
        (10**7, {"png"}, 32, 8),
        (10**6, {"jpeg"}, 8, 8),
        (150_000, {"jpeg"}, 4, 8),
        (40_000, {"jpeg"}, 4, 2),
    ],
)
def test_what_is_shown_fits(limit, kinds, least, chains):
    sheets = Sheets.fitting(modes(scanned(8, 32, (64, 64, 3)), None, RGB), RGB, limit)
    source = viewer_html(sheets, ident="u", chains=8, draws=320, no_stein="")
    assert sheets.quality.kind in kinds
    shown, frames = sheets.modes["draw"].images.shape[:2]
    assert frames >= least
    assert shown >= chains
    assert len(source) < 1.15 * limit + 5_000
    assert ("fit here" in source) == (shown < 8)
    assert sheets.modes["draw"].labels[-1] == "draw 310"


def test_one_draw_is_shown_whatever_the_limit():
    sheets = Sheets.fitting(modes(scanned(8, 32, (64, 64, 3)), None, RGB), RGB, -5)
    assert sheets.modes["mean"].labels == ["draws 0–310"]
    source = viewer_html(sheets, ident="u", chains=8, draws=320, no_stein="")
    assert source.count("disabled") == 3  # slider, button, Stein mean


def test_pictures_keep_their_pixels_at_every_step():
    scan = scanned(2, 3, (4, 4, 1))
    tones = Tones("grey", (100.0,))
    sheets = Sheets.fitting(modes(scan, None, tones), tones, 10**6)
    source = viewer_html(sheets, ident="u", chains=2, draws=30, no_stein="no Stein mean")
    for mode, images in {"draw": scan.shown, "mean": scan.running}.items():
        found = data(source)["modes"][mode]
        assert set(found["notes"]) == {"Pixels are as they are, 0 to 255."}
        sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["sheets"][1]))))
        expected = np.clip(images[0, 1] + 100, 0, 255).round()
        np.testing.assert_array_equal(sheet[:4, :4], expected[..., 0])
    assert "Mid-grey" not in source
