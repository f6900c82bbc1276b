import threading
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.machines import spreading
from ppl_cnn.machines.spreading import even_devices, in_turn, own_part, whole


@pytest.mark.parametrize(
    ("count", "processes", "each"),
    [(8, [2, 2], 2), (6, [4, 4], 3), (2, [2, 2], 1), (12, [4, 2], 2), (7, [4], 1), (8, [4], 4)],
)
def test_devices_are_equally_many(monkeypatch, as_in_a_program, count, processes, each):
    """Each process has as many as the others."""
    monkeypatch.setattr(spreading.jax, "process_count", lambda: len(processes))
    monkeypatch.setattr(
        spreading.jax, "local_devices", lambda index: [(index, n) for n in range(processes[index])]
    )
    found = even_devices(count)
    assert found == [(index, n) for index in range(len(processes)) for n in range(each)]


def test_one_process_has_all():
    array = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(whole(array), own_part({"a": array})["a"])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_work_in_turn_gives_each_item_its_result(monkeypatch, count, processes):
    """With the processes in threads, which meet where they gather. Doubles keep their bits."""
    given, met = {}, threading.Barrier(processes)

    def gathered(own):
        given[spreading.jax.process_index()] = own
        met.wait()
        all_ = np.stack([given[index] for index in range(processes)])
        met.wait()
        return all_

    def run(index):
        mine.index = index
        return in_turn(lambda n: (np.full(2, n, np.float32), n + 1 / 3), range(count))

    mine = threading.local()
    monkeypatch.setattr(spreading.jax, "process_count", lambda: processes)
    monkeypatch.setattr(spreading.jax, "process_index", lambda: getattr(mine, "index", 0))
    monkeypatch.setattr(spreading, "_gathered", gathered)
    with ThreadPoolExecutor(processes) as pool:
        for found in pool.map(run, range(processes)):
            assert [float(number) for _, number in found] == [n + 1 / 3 for n in range(count)]
            assert [array.tolist() for array, _ in found] == [[n, n] for n in range(count)]
