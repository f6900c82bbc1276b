import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.models.networks.receptive_field import receptive_fields

SHAPE = (8, 9, 2)


def fields(respond, *places):
    places = places or (np.ones((), np.float32),)
    return list(receptive_fields(lambda _, x: respond(x), {}, SHAPE, places))


def at(row, col):
    chosen = np.zeros(SHAPE[:2], np.float32)
    chosen[row, col] = 1
    return chosen


def test_a_crops_is_the_crop():
    assert fields(lambda x: x[:, 2:5, 3:4, 0].reshape(3, -1)) == [(range(2, 5), range(3, 4))]


def test_it_is_the_hull_of_what_is_read():
    def corners(x):
        return x[:, 1, 7, :] + x[:, 6, 2, :]

    assert fields(corners) == [(range(1, 7), range(2, 8))]


def test_each_place_has_its_own():
    two, mean = at(2, 0) + at(5, 3), np.full(SHAPE[:2], 1 / 72, np.float32)
    assert fields(jax.nn.relu, at(0, 8), two, mean) == [
        (range(1), range(8, 9)),
        (range(2, 6), range(4)),
        (range(8), range(9)),
    ]


@pytest.mark.parametrize("squash", [jnp.tanh, jax.nn.sigmoid, jax.nn.relu6, jax.nn.relu])
def test_saturation_hides_nothing(squash):
    """At 64 grey levels these have no gradient or half of one."""
    assert fields(lambda x: squash(squash(x[:, 1:4, 2:6, :].reshape(3, -1)))) == [
        (range(1, 4), range(2, 6))
    ]


def test_pooling_hides_nothing():
    def pooled(x):
        return jnp.max(x[:, 3:6, 3:6, :], axis=(1, 2))

    assert fields(pooled) == [(range(3, 6), range(3, 6))]


def test_a_dependence_without_gradient_makes_it_the_whole_image():
    def rounded(x):
        return x[:, 4, 4, :] + jnp.round(x[:, 0, 0, :])

    assert fields(rounded) == [(range(8), range(9))]


def test_without_any_gradient_it_is_empty():
    assert fields(jnp.zeros_like, at(1, 1)) == [(range(0), range(0))]
