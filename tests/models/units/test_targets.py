import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.units.targets import needs_classes, parse_target
from ppl_cnn.models.units.unit import find_units

LOGITS = 20 * np.random.default_rng(0).normal(size=12)

FORMULAE = [
    ("logit", lambda f: f),
    ("log-prob", special.log_softmax),
    ("soft-log-prob:10", lambda f: 10 * special.log_softmax(f / 10)),
    ("soft-log-prob:0.5", lambda f: special.log_softmax(f / 0.5) / 2),
]


@pytest.mark.parametrize(("text", "formula"), FORMULAE)
def test_a_target_is_its_formula(text, formula):
    actual = parse_target(text)(jnp.asarray(LOGITS, jnp.float32))
    np.testing.assert_allclose(actual, formula(LOGITS), rtol=1e-5, atol=2e-5)
    assert needs_classes(text) == (text != "logit")


def test_a_tau_of_one_is_the_log_probability():
    logits = jnp.asarray(LOGITS, jnp.float32)
    np.testing.assert_array_equal(
        parse_target("soft-log-prob:1")(logits), parse_target("log-prob")(logits)
    )


def test_a_soft_target_still_rises_where_the_log_probability_is_flat():
    """d/df_c tau log_softmax(f/tau)_c = 1 - softmax(f/tau)_c."""
    logits = jnp.asarray([12.0, 0.0, -3.0])
    for tau in (1, 10):
        slope = jax.grad(lambda f, tau=tau: parse_target(f"soft-log-prob:{tau}")(f)[0])(logits)[0]
        expected = 1 - special.softmax(np.asarray(logits, np.float64) / tau)[0]
        # 1 - p has float32's error of p.
        np.testing.assert_allclose(slope, expected, atol=2e-7)
    assert slope > 0.3


BAD = ["", "logits", "log_prob", "soft-log-prob", "soft-log-prob:", "soft-log-prob:0", "Logit"]
BAD += ["soft-log-prob:-1", "soft-log-prob:nan", "soft-log-prob:inf", "soft-log-prob:1:2"]


@pytest.mark.parametrize("text", BAD)
def test_texts_that_name_no_target_are_refused(text, random_params, refused):
    with refused(repr(text), "logit, log-prob", "positive TAU"):
        find_units("class:0", LENET, random_params(LENET), target=text)


def test_a_classes_soft_log_probability_is_of_the_classifiers_logits(random_params):
    """With alpha; and only classes have one."""
    params, alpha = random_params(LENET), jnp.arange(10.0)
    image = 30 * jax.random.normal(jax.random.key(0), LENET.image_shape)
    logits = [
        float(unit.score(unit.params, image)) for unit in find_units("class:0-9", LENET, params)
    ]
    expected = 4 * special.log_softmax((np.asarray(logits) + np.arange(10)) / 4)
    units = find_units("class:0-9", LENET, params, alpha, target="soft-log-prob:4")
    actual = [float(unit.score(unit.params, image)) for unit in units]
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    assert units[3].settings == {"unit": "fc4:3", "response": "pre", "target": "soft-log-prob:4"}


def test_filters_have_no_soft_log_probability(random_params, refused):
    with refused("conv1", "no probabilities", "soft-log-prob:4", "fc4"):
        find_units("conv1:0", LENET, random_params(LENET), target="soft-log-prob:4")
