"""What a GPU does with this package: accuracy, bits, speed. At most 8 minutes on one GPU.

    python -m benchmarks.gpu_check [PART ...] [--out FOLDER]

Each part is a process of its own with a time limit, so that one that hangs or fails costs no other;
`benchmarks.gpu_parts` says what each measures. JSON lines, and at the end a verdict: which parts
found something wrong, and for which no time was left. It has never run on a GPU.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import command_line, say

PARTS = {
    "devices": 40,
    "accuracy": 80,
    "bits": 110,
    "leapfrog": 90,
    "busy": 60,
    "step": 90,
    "loader": 40,
    "tests": 90,
    "trace": 40,
}
"""Part -> seconds that it may take; of them all, those of the most urgent come first."""
BUDGET = 470.0
"""Seconds of all parts together."""


def run(part: str, out: Path, *, toy: bool, seconds: float) -> list[dict]:
    """The JSON lines of a part, and one more with `failed` if it didn't end well.

    Args:
        part: its name.
        out: a folder for what it writes.
        toy: whether to run on tiny sizes.
        seconds: how long it may take.
    """
    command = [sys.executable, "-m", "benchmarks.gpu_parts", part, str(out), *["--toy"] * toy]
    # What a part has started ends with it, and would keep its pipes open otherwise.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    why = ""
    try:
        said, told = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        why = f"it took longer than {seconds:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if why:
        said, told = process.communicate()
    elif process.returncode:
        why = (told.strip().splitlines() or ["no message"])[-1]
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [*lines, {"part": part, "failed": why}] if why else lines


def main():
    parser = command_line(__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="by default all")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"), help="for the trace")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    began, wrong, skipped = time.monotonic(), list[str](), list[str]()
    patience = 10 if options.toy else 1  # a toy runs where there is no GPU
    for part in options.parts or PARTS:
        left = patience * BUDGET - (time.monotonic() - began)
        if left < 20:
            skipped.append(part)
            continue
        lines = run(part, options.out, toy=options.toy, seconds=min(left, patience * PARTS[part]))
        for line in lines:
            say(**line)
        if not lines or any("failed" in line or line.get("passed") is False for line in lines):
            wrong.append(part)
        if part == "devices" and wrong and not options.toy:
            break
    seconds = round(time.monotonic() - began, 1)
    passed = not wrong and not skipped
    say(part="verdict", passed=passed, wrong=wrong, skipped=skipped, seconds=seconds)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
