import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz.py"


@pytest.mark.parametrize(("what", "cases"), [("images", "500"), ("folders", "200")])
def test_some_cases(what, cases):
    line = [sys.executable, str(FUZZ), what, "--cases", cases]
    run = subprocess.run(line, capture_output=True, text=True, timeout=300, errors="replace")
    assert run.returncode == 0, run.stderr[-2000:]
    assert f"{what}: {int(cases):,} cases" in run.stdout
