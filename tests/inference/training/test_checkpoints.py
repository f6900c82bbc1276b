import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.data import open_split, training_batches
from ppl_cnn.inference.training.checkpoints import Checkpoints, whole_steps
from ppl_cnn.inference.training.losses import Bank
from ppl_cnn.inference.training.placement import BatchesAhead, data_mesh
from ppl_cnn.inference.training.step import TrainState


def state_of(number):
    zero = jnp.zeros((), jnp.int32)
    params = {"fc": {"kernel": jnp.full((2, 3), number, jnp.float32)}}
    bank = Bank.empty(4, 3).push(jnp.full((2, 3), number, jnp.float32), 0.5)
    ess = jnp.asarray(float(number))
    averages = {"norm.mean": jnp.full(2, number, jnp.float32)}
    return TrainState(params, averages, (), jnp.zeros(3), bank, ess, zero + number, zero, zero)


def loader():
    return BatchesAhead(
        training_batches(open_split("fashion-embedded", "train[:50]"), 5, 0), data_mesh()
    )


def steps(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_the_last_ones_and_the_best_are_kept_also_by_a_later_session(tmp_path):
    checkpoints, batches = Checkpoints(tmp_path, keep=2), loader()
    for step, error in ((1, 0.5), (2, 0.2), (3, 0.3), (4, 0.2)):
        next(batches)
        checkpoints.save(step, state_of(step), batches)
        checkpoints.tested(step, error)
    next(batches)
    checkpoints.save(5, state_of(5), batches)
    checkpoints.close()
    assert steps(tmp_path) == [2, 4, 5]
    checkpoints, others = Checkpoints(tmp_path, keep=2), loader()
    restored = checkpoints.restore(state_of(0), others)
    np.testing.assert_array_equal(next(others)[0], next(batches)[0])
    assert checkpoints.best == (2, 0.2)
    wanted = state_of(5)
    np.testing.assert_array_equal(restored.params["fc"]["kernel"], wanted.params["fc"]["kernel"])
    np.testing.assert_array_equal(restored.bank.log_weight, wanted.bank.log_weight)
    assert restored.step == 5
    for step in (6, 7):
        checkpoints.save(step, state_of(step), others)
    checkpoints.tested(7, 0.1)
    checkpoints.save(8, state_of(8), others)
    checkpoints.save(8, state_of(9), others)  # a second time, nothing happens
    checkpoints.close()
    assert steps(tmp_path) == [7, 8]


def test_where_nothing_was_saved_the_state_is_the_given_one(tmp_path):
    checkpoints, batches, given = Checkpoints(tmp_path, keep=1), loader(), state_of(3)
    begun = batches.state
    assert checkpoints.restore(given, batches) is given
    assert batches.state == begun
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
