"""The judge of class images looks at runs of the command."""

import json
from pathlib import Path

import numpy as np
import pytest

import ppl_cnn

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_a_runs_starts_and_draws_are_judged(tmp_path, command, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.common import squeezenet

    unit = squeezenet(32, toy=True).unit("class:3")
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0))
    ppl_cnn.draw(density, chains=2, draws=4, warmup=3, out=tmp_path, progress=False)
    done = command("benchmarks.recognition.judging", "--toy", str(tmp_path))
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["class"] == 3
    assert np.shape(line["ranks"]) == (2, 5)
    assert np.all((np.asarray(line["ranks"]) >= 0) & (np.asarray(line["ranks"]) < 1000))
    assert np.shape(line["response"]) == (2, 4)
