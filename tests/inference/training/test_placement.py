import json
import subprocess
import sys

import numpy as np

from ppl_cnn.data import open_split, training_batches
from ppl_cnn.inference.training.placement import BatchesAhead, data_mesh


def loader(batch=8):
    return training_batches(open_split("fashion-embedded", "train[:100]"), batch, seed=3)


def test_batches_come_in_the_loaders_order_and_their_state_is_of_those_handed_out():
    plain, ahead = loader(), BatchesAhead(loader(), data_mesh())
    assert ahead.state == plain.get_state()
    for _ in range(30):  # two epochs and a half
        wanted = next(plain)
        images, labels = next(ahead)
        np.testing.assert_array_equal(images, wanted["image"])
        np.testing.assert_array_equal(labels, wanted["label"])
        assert ahead.state == plain.get_state()
    state = json.loads(json.dumps(ahead.state))
    other = BatchesAhead(loader(), data_mesh())
    next(other)
    other.set_state(state)
    np.testing.assert_array_equal(next(other)[0], next(plain)["image"])


PARTS = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from ppl_cnn.inference.training.placement import data_mesh, in_parts, local, put
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
