from functools import partial

import jax.numpy as jnp

from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.units.score_function import Scored, ScoreFunction


def brightness(image):
    return jnp.mean(image)


def test_a_score_function_stands_in_for_a_unit():
    response = ScoreFunction(brightness, (2, 3, 1))
    assert isinstance(response, Scored)
    assert (str(response), response.shape, response.params) == ("brightness", (2, 3, 1), {})
    assert (response.rows, response.cols) == (range(2), range(3))
    assert response.score({}, jnp.full((2, 3, 1), 4.0)) == 4
    assert (response.image_shape, response.preprocessing.mean) == ((2, 3, 1), (0.0,))


def test_a_score_functions_images_stand_where_it_says():
    response = ScoreFunction(brightness, (2, 3, 3), mean=(104.0, 117.0, 123.0), order="BGR")
    assert response.preprocessing == Preprocessing((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), "BGR")


def test_means_and_orders_that_do_not_fit_are_refused(refused):
    with refused("3 channels", "(1.0, 2.0)", kind=ArgumentError, argument="mean"):
        ScoreFunction(brightness, (2, 3, 3), mean=(1.0, 2.0))
    with refused("RGB or BGR", "'grey'", kind=ArgumentError, argument="order"):
        ScoreFunction(brightness, (2, 3, 3), order="grey")


def test_a_score_function_without_a_name_is_shown_by_its_class():
    assert str(ScoreFunction(partial(brightness), (2, 3, 1))) == "partial"
