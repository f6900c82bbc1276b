import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ppl_cnn.errors import ArgumentError, FileError
from ppl_cnn.inference.report.animated import animate
from ppl_cnn.inference.runs.record import unit_folder


@pytest.fixture
def run(tmp_path, write_run, noise):
    """Three chains of ten draws of four pixels, in pictures of a data set."""
    images = noise(3, 10, (2, 2, 1))
    record = {"preprocessing": {"mean": [100.0], "order": "grey"}}
    write_run(tmp_path / "run", images, config={"reference": "data:mnist"}, record=record)
    return tmp_path / "run", images


def test_a_gif_has_every_draw_of_every_chain(run):
    folder, images = run
    (path,) = animate(folder, "gif")
    assert path == folder / "images" / "draws.gif"
    with Image.open(path) as shown:
        assert (shown.n_frames, shown.info["duration"], shown.info["loop"]) == (10, 100, 0)
        for draw in range(10):
            shown.seek(draw)
            levels = np.asarray(shown.convert("L")).astype(int)
            # Chains 0 and 1 above, chain 2 below; each pixel is 80 wide, and a gap is 4.
            assert levels.shape == (324, 324)
            for chain, (top, left) in enumerate([(0, 0), (0, 164), (164, 0)]):
                square = levels[top + 40 : top + 160 : 80, left + 40 : left + 160 : 80]
                expected = np.round(images[chain, draw, ..., 0] + 100)
                np.testing.assert_array_equal(square, expected)
            assert (levels[164:, 164:] == 255).all()


def test_many_draws_are_spread_and_units_without_any_are_left_out(
    tmp_path, write_run, noise, monkeypatch
):
    monkeypatch.setattr("ppl_cnn.inference.report.animated._FRAMES", 5)
    config = {"kind": "sampling", "units": ["a:0", "a:1"]}
    (tmp_path / "run.json").write_text(json.dumps({"config": config}))
    write_run(tmp_path / unit_folder("a:1"), noise(1, 40, (8, 8, 3)))
    (path,) = animate(tmp_path, "gif")
    assert path.parts[-3:] == ("a-1", "images", "draws.gif")
    with Image.open(path) as shown:
        assert shown.n_frames == 5


FFMPEG = """#!/bin/sh
for last; do :; done
cat > "$last"
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that puts a program of this text on PATH as ffmpeg."""

    def program(text):
        path = tmp_path / "bin" / "ffmpeg"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return program


def test_ffmpeg_gets_frames_with_even_sides(run, program):
    folder, _ = run
    program(FFMPEG)
    (path,) = animate(folder, "mp4")
    assert path.stat().st_size == 10 * 324 * 324 * 3
    assert not list(path.parent.glob(".*"))


def test_a_failure_of_ffmpeg_is_one_sentence(run, program, refused):
    folder, _ = run
    program("#!/bin/sh\necho 'no encoder' >&2\nexit 1\n")
    with refused("draws.mp4", "no encoder", kind=FileError):
        animate(folder, "mp4")
    assert not list((folder / "images").iterdir())


def test_mp4_without_ffmpeg_is_refused(run, monkeypatch, refused):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with refused("ffmpeg", "save=gif", kind=ArgumentError, argument="save"):
        animate(run[0], "mp4")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on PATH")
def test_the_real_ffmpeg_writes_an_mp4(run):
    (path,) = animate(run[0], "mp4")
    assert path.read_bytes()[4:8] == b"ftyp"
