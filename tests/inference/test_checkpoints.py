import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.inference.checkpoints import Checkpoints, whole_steps
from ppl_cnn.inference.losses import Bank
from ppl_cnn.inference.training_step import TrainState


def state_of(number):
    zero = jnp.zeros((), jnp.int32)
    params = {"fc": {"kernel": jnp.full((2, 3), number, jnp.float32)}}
    bank = Bank.empty(4, 3).push(jnp.full((2, 3), number, jnp.float32), 0.5)
    ess = jnp.asarray(float(number))
    return TrainState(params, (), jnp.zeros(3), bank, ess, zero + number, zero, zero)


class Loader:
    """What `Checkpoints` asks of an `Ahead`."""

    def __init__(self, state):
        self.state = state

    def set_state(self, state):
        self.state = state


def steps(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_the_last_ones_and_the_best_are_kept_also_by_a_later_session(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, error in ((1, 0.5), (2, 0.2), (3, 0.3), (4, 0.2)):
        checkpoints.save(step, state_of(step), Loader({"at": step}))
        checkpoints.tested(step, error)
    checkpoints.save(5, state_of(5), Loader({"at": 5}))
    checkpoints.close()
    assert steps(tmp_path) == [2, 4, 5]
    checkpoints, loader = Checkpoints(tmp_path, keep=2), Loader(None)
    restored = checkpoints.restore(state_of(0), loader)
    assert loader.state == {"at": 5}
    assert checkpoints.best == (2, 0.2)
    wanted = state_of(5)
    np.testing.assert_array_equal(restored.params["fc"]["kernel"], wanted.params["fc"]["kernel"])
    np.testing.assert_array_equal(restored.bank.log_weight, wanted.bank.log_weight)
    assert restored.step == 5
    for step in (6, 7):
        checkpoints.save(step, state_of(step), loader)
    checkpoints.tested(7, 0.1)
    checkpoints.save(8, state_of(8), loader)
    checkpoints.save(8, state_of(9), loader)  # a second time, nothing happens
    checkpoints.close()
    assert steps(tmp_path) == [7, 8]


def test_where_nothing_was_saved_the_state_is_the_given_one(tmp_path):
    checkpoints, loader = Checkpoints(tmp_path, keep=1), Loader("start")
    given = state_of(3)
    assert checkpoints.restore(given, loader) is given
    assert loader.state == "start"
    checkpoints.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_acts_after_the_step_and_a_second_one_at_once(number):
    acted = []

    def act(which, frame):
        acted.append(which)
        raise KeyboardInterrupt

    def step(times):
        with whole_steps(1) as stopping:
            assert not stopping()
            for _ in range(times):
                os.kill(os.getpid(), number)
            assert stopping()
            assert not acted
            acted.append("the step is whole")

    before = signal.signal(number, act)
    try:
        with pytest.raises(KeyboardInterrupt):
            step(times=1)
        assert acted == ["the step is whole", number]
        acted.clear()
        with pytest.raises(KeyboardInterrupt):
            step(times=2)
        assert acted == [number]
        assert signal.getsignal(number) is act
    finally:
        signal.signal(number, before)
