"""What a GPU does with this package: accuracy, bits, speed. At most 8 minutes on one GPU.

    python -m benchmarks.gpu_check [PART ...] [--out FOLDER]

Each part is a process of its own with a time limit, so that one that hangs or fails costs no other;
`benchmarks.gpu_parts` says what each measures. JSON lines, and at the end a verdict: which parts
found something wrong. It has never run on a GPU.
"""

import json
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
    """The JSON lines of a part; one with `failed` if it didn't end well.

    Args:
        part: its name.
        out: a folder for what it writes.
        toy: whether to run on tiny sizes.
        seconds: how long it may take.
    """
    command = [sys.executable, "-m", "benchmarks.gpu_parts", part, str(out), *["--toy"] * toy]
    try:
        done = subprocess.run(command, timeout=seconds, text=True, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        return [{"part": part, "failed": f"it took longer than {seconds:.0f} s"}]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        lines.append({"part": part, "failed": last[0]})
    return lines


def main():
    parser = command_line(__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="by default all")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"), help="for the trace")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    began, wrong = time.monotonic(), []
    for part in options.parts or PARTS:
        left = BUDGET - (time.monotonic() - began)
        if left < 20:
            say(part=part, skipped="no time is left")
            continue
        lines = run(part, options.out, toy=options.toy, seconds=min(left, PARTS[part]))
        for line in lines:
            say(**line)
        if not lines or any("failed" in line or line.get("passed") is False for line in lines):
            wrong.append(part)
        if part == "devices" and wrong and not options.toy:
            break
    say(part="verdict", passed=not wrong, wrong=wrong, seconds=round(time.monotonic() - began, 1))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
