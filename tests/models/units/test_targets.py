import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ppl_cnn.errors import ArgumentError, MismatchError, UnknownNameError
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.units.targets import AUTO, Logit, LogProb, SoftLogProb, parse_target, settled
from ppl_cnn.models.units.unit import find_units


@pytest.fixture
def logits():
    return 20 * np.random.default_rng(0).normal(size=12)


FORMULAE = [
    ("logit", Logit(), lambda f: f),
    ("log-prob", LogProb(), special.log_softmax),
    ("soft-log-prob:10", SoftLogProb(10), lambda f: 10 * special.log_softmax(f / 10)),
    ("soft-log-prob:0.5", SoftLogProb(0.5), lambda f: special.log_softmax(f / 0.5) / 2),
]


@pytest.mark.parametrize(("text", "target", "formula"), FORMULAE)
def test_a_target_is_its_formula(text, target, formula, logits):
    actual = target(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(actual, formula(logits), rtol=1e-5, atol=2e-5)
    assert target.compares_classes == (text != "logit")


@pytest.mark.parametrize(("text", "target", "formula"), FORMULAE)
def test_a_target_is_read_from_the_text_that_it_shows(text, target, formula):
    assert str(target) == text
    assert parse_target(text) == target
    assert parse_target(target) is target


@pytest.mark.parametrize("tau", [1e-7, 1 / 3, 7.25, 1e22])
def test_a_softness_is_shown_exactly(tau):
    assert parse_target(str(SoftLogProb(tau))) == SoftLogProb(tau)


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan"), float("inf")])
def test_a_softness_that_is_not_positive_and_finite_is_refused(tau, refused):
    with refused(tau, "positive and finite", kind=ArgumentError, argument="tau"):
        SoftLogProb(tau)


def test_a_tau_of_one_is_the_log_probability(logits):
    logits = jnp.asarray(logits, jnp.float32)
    np.testing.assert_array_equal(SoftLogProb(1)(logits), LogProb()(logits))


def test_a_soft_target_still_rises_where_the_log_probability_is_flat():
    """d/df_c tau log_softmax(f/tau)_c = 1 - softmax(f/tau)_c."""
    logits = jnp.asarray([12.0, 0.0, -3.0])
    for tau in (1, 10):
        slope = jax.grad(lambda f, tau=tau: SoftLogProb(tau)(f)[0])(logits)[0]
        expected = 1 - special.softmax(np.asarray(logits, np.float64) / tau)[0]
        # 1 - p has float32's error of p.
        np.testing.assert_allclose(slope, expected, atol=2e-7)
    assert slope > 0.3


def test_auto_leaves_the_target_of_classes_to_the_network():
    assert parse_target("auto") is parse_target(AUTO) is AUTO
    assert settled(AUTO, suited=LogProb(), is_class=True) == LogProb()
    assert settled(AUTO, suited=LogProb(), is_class=False) == Logit()
    assert settled(SoftLogProb(4.0), suited=LogProb(), is_class=True) == SoftLogProb(4.0)


BAD = ["", "logits", "log_prob", "soft-log-prob", "soft-log-prob:", "soft-log-prob:0", "Logit"]
BAD += ["soft-log-prob:-1", "soft-log-prob:nan", "soft-log-prob:inf", "soft-log-prob:1:2"]


@pytest.mark.parametrize("text", BAD)
def test_texts_that_name_no_target_are_refused(text, random_params, refused):
    forms = ("auto", "logit", "log-prob", "soft-log-prob:TAU")
    with refused(repr(text), *forms, kind=UnknownNameError, name=text, known=forms):
        find_units("class:0", LENET, random_params(LENET), target=text)


def test_a_classes_soft_log_probability_is_of_the_classifiers_logits(random_params):
    """With alpha; and only classes have one."""
    params, alpha = random_params(LENET), jnp.arange(10.0)
    image = 30 * jax.random.normal(jax.random.key(0), LENET.image_shape)
    logits = [
        float(unit.score(unit.params, image)) for unit in find_units("class:0-9", LENET, params)
    ]
    expected = 4 * special.log_softmax((np.asarray(logits) + np.arange(10)) / 4)
    units = find_units("class:0-9", LENET, params, alpha=alpha, target=SoftLogProb(4.0))
    actual = [float(unit.score(unit.params, image)) for unit in units]
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    assert units[3].settings == {"unit": "fc4:3", "response": "pre", "target": "soft-log-prob:4"}


def test_filters_have_no_soft_log_probability(random_params, refused):
    with refused("conv1", "soft-log-prob:4", "fc4", kind=MismatchError):
        find_units("conv1:0", LENET, random_params(LENET), target="soft-log-prob:4")
