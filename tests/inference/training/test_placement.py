import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ppl_cnn.data import open_split, training_batches
from ppl_cnn.inference.training.batches_ahead import Ahead
from ppl_cnn.inference.training.placement import data_mesh
from ppl_cnn.inference.training.processes import join


def loader(batch=8):
    return training_batches(open_split("fashion-embedded", "train[:100]"), batch, seed=3)


def test_batches_come_in_the_loaders_order_and_their_state_is_of_those_handed_out():
    plain, ahead = loader(), Ahead(loader(), data_mesh())
    assert ahead.state == plain.get_state()
    for _ in range(30):  # two epochs and a half
        wanted = next(plain)
        images, labels = next(ahead)
        np.testing.assert_array_equal(images, wanted["image"])
        np.testing.assert_array_equal(labels, wanted["label"])
        assert ahead.state == plain.get_state()
    state = json.loads(json.dumps(ahead.state))
    other = Ahead(loader(), data_mesh())
    next(other)
    other.set_state(state)
    np.testing.assert_array_equal(next(other)[0], next(plain)["image"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("localhost:1234", None, None), "need --coordinator HOST:PORT, --process-id"),
        (("localhost:1234", 0, None), "need --coordinator"),
        ((None, 0, 2), "need --coordinator"),
        (("auto", 0, 2), "just --coordinator auto"),
        (("localhost:1234", 2, 2), "Process 2 of 2 can't be"),
    ],
)
def test_processes_half_described_are_refused(given, words, refused):
    with refused(words):
        join(*given)


def test_a_process_alone_joins_nobody():
    join(None, None, None)
    assert jax.process_count() == 1


PARTS = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from ppl_cnn.inference.training.placement import data_mesh, in_parts, local, put
from ppl_cnn.inference.training.processes import join
from ppl_cnn import InputError
mesh = data_mesh()
for shape in ((6, 8, 4), (8, 12), (5, 7), (), (4,), (0, 3)):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(np.float32)
    placed = put(array, in_parts(mesh, shape))
    np.testing.assert_array_equal(local(placed, mesh), array)
    print(tuple(placed.sharding.spec), placed.addressable_shards[0].data.shape)
"""


def test_arrays_lie_in_parts_along_their_largest_axis_that_the_devices_divide():
    done = subprocess.run([sys.executable, "-c", PARTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "(None, 'data') (6, 2, 4)",
        "(None, 'data') (8, 3)",
        "() (5, 7)",
        "() ()",
        "('data',) (1,)",
        "() (0, 3)",
    ]
    assert PartitionSpec(None, "data") != PartitionSpec("data")


def test_no_scheduler_is_said():
    script = "from ppl_cnn.inference.training.placement import join; join('auto', None, None)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "InputError: The processes can't come together (" in done.stderr
