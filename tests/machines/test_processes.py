import subprocess
import sys

import jax
import pytest

from ppl_cnn.errors import ArgumentError
from ppl_cnn.machines.processes import Processes


@pytest.mark.parametrize(
    ("given", "argument", "facts"),
    [
        (("localhost:1234", None, None), "coordinator", ["`process_id`", "`num_processes`"]),
        (("localhost:1234", 0, None), "coordinator", ["HOST:PORT"]),
        ((None, 0, 2), "coordinator", ["HOST:PORT"]),
        (("auto", 0, 2), "coordinator", ["`coordinator=auto` alone"]),
        (("localhost:1234", 2, 2), "process_id", ["0 to 1", "2 processes", "not 2"]),
    ],
)
def test_processes_half_described_are_refused(given, argument, facts, refused):
    with refused(*facts, kind=ArgumentError, argument=argument):
        Processes(*given).join()


def test_a_process_alone_joins_nobody():
    Processes().join()
    assert jax.process_count() == 1


def test_no_scheduler_is_said():
    script = (
        "from ppl_cnn.machines.processes import Processes\nProcesses(coordinator='auto').join()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "InputError: The processes can't be connected (" in done.stderr
