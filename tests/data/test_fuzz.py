import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("what", "cases"), [("images", "500"), ("folders", "200")])
def test_some_cases(what, cases):
    line = [sys.executable, "-m", "tests.data.fuzz", what, "--cases", cases]
    run = subprocess.run(
        line, capture_output=True, text=True, timeout=300, errors="replace", cwd=ROOT
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert f"{what}: {int(cases):,} cases" in run.stdout
