import math
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.inference.training.losses import (
    Bank,
    LogMeanExp,
    class_offsets,
    discriminative_loss,
    generative_bound,
    generative_loss,
    hybrid_loss,
    importance_ess,
    separated_ess,
)
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.networks.forward import scores
from ppl_cnn.models.networks.layers import Conv, Dense, ReLU

N, C = 7, 4
SMALL = replace(
    LENET,
    name="small",
    layers=(Conv("conv1", 4, kernel=5, stride=3), ReLU("relu1"), Dense("fc4", 10)),
)
LABELS = np.asarray([0, 2, 2, 3, 0, 2, 0])  # class 1 has no image


def random_scores(n=N, c=C, scale=2.0):
    return np.random.default_rng(0).normal(0, scale, (n, c))


def summed_generative(F, labels):
    total = 0.0
    for i in range(len(F)):
        y = labels[i]
        mean = sum(math.exp(F[j][y]) for j in range(len(F))) / len(F)
        total += F[i][y] - math.log(mean)
    return -total / len(F)


def summed_discriminative(F, labels):
    total = 0.0
    for i in range(len(F)):
        total += F[i][labels[i]] - math.log(sum(math.exp(score) for score in F[i]))
    return -total / len(F)


SHARE = 0.3
SUMS = {
    "generative": summed_generative,
    "discriminative": summed_discriminative,
    "hybrid": lambda F, labels: (
        (1 - SHARE) * summed_generative(F, labels) + SHARE * summed_discriminative(F, labels)
    ),
}
OBJECTIVES = {
    "generative": generative_loss,
    "discriminative": discriminative_loss,
    "hybrid": lambda F, labels: hybrid_loss(
        F, labels, alpha=jnp.zeros(F.shape[1], F.dtype), share=SHARE
    ),
}
WITH_GRADIENT = {name: jax.jit(jax.value_and_grad(loss)) for name, loss in OBJECTIVES.items()}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_loss_is_its_written_out_sum(name):
    F = random_scores()
    actual, _ = WITH_GRADIENT[name](jnp.asarray(F, jnp.float32), jnp.asarray(LABELS))
    np.testing.assert_allclose(actual, SUMS[name](F, LABELS), rtol=1e-6)  # float32
    with jax.enable_x64(True):
        actual, _ = WITH_GRADIENT[name](jnp.asarray(F), jnp.asarray(LABELS))
        assert actual.dtype == np.float64
        np.testing.assert_allclose(actual, SUMS[name](F, LABELS), rtol=1e-13)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_losss_gradient_is_the_finite_difference_of_its_sum(name):
    F, step = random_scores(), 1e-5
    expected = np.zeros((N, C))
    for index in np.ndindex(N, C):
        shift = np.zeros((N, C))
        shift[index] = step
        difference = SUMS[name](F + shift, LABELS) - SUMS[name](F - shift, LABELS)
        expected[index] = difference / (2 * step)
    with jax.enable_x64(True):
        _, gradient = WITH_GRADIENT[name](jnp.asarray(F), jnp.asarray(LABELS))
        # Central differences: step^2 of truncation, 1e-16/step of rounding.
        np.testing.assert_allclose(gradient, expected, atol=1e-9)


def importance_weights(F):
    weights = np.exp(F - F.max(0))
    return weights / weights.sum(0)


def test_the_generative_gradient_is_the_importance_sampled_one():
    # With images of three pixels and linear scores f_y(x) = <w_y, x>, grad f_y(x) = x:
    # -grad L = mean_i [ x_i - sum_j W[j,y_i] x_j ] in the row of y_i.
    random = np.random.default_rng(1)
    images, w = random.normal(size=(N, 3)), random.normal(size=(C, 3))
    W = importance_weights(images @ w.T)
    expected = np.zeros((C, 3))
    for i, y in enumerate(LABELS):
        expected[y] -= (images[i] - sum(W[j, y] * images[j] for j in range(N))) / N
    labels = jnp.asarray(LABELS)
    x = jnp.asarray(images, jnp.float32)
    gradient = jax.grad(lambda w: generative_loss(x @ w.T, labels))(jnp.asarray(w, jnp.float32))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)  # float32, terms of order 1


def test_the_generative_gradient_is_exact_where_the_batch_is_the_reference():
    # q uniform on the N images: grad log Z_y = E_{p_y}[grad f_y] with p_y = softmax of column y,
    # so that gradient of -log p_y(x_i)/q(x_i) by autodiff of the exact Z is that of the loss.
    F = jnp.asarray(random_scores(), jnp.float32)

    def exact(F):
        log_p = F - jnp.log(jnp.sum(jnp.exp(F), axis=0))[None, :]
        return -jnp.mean(log_p[jnp.arange(N), LABELS] + math.log(N))

    gradient = jax.grad(generative_loss)(F, jnp.asarray(LABELS))
    np.testing.assert_allclose(gradient, jax.grad(exact)(F), atol=1e-6)


bound_of = jax.jit(generative_bound, static_argnums=1)
ess_of = jax.jit(importance_ess)
separated_ess_of = jax.jit(separated_ess, static_argnums=1)
BATCHES = {
    "even": [0, 1, 2, 3] * 3,
    "uneven": [0, 0, 0, 0, 0, 1, 1, 3],  # class 2 has no image
    "one class": [2] * 5,
    "no two alike": [3, 1, 0, 2],
}


def entropy(labels):
    shares = np.bincount(labels) / len(labels)
    return -sum(share * math.log(share) for share in shares if share)


def separated(labels, peak):
    """Each image scores `peak` for its own class, and minus that for the others."""
    return peak * (2 * np.eye(C, dtype=np.float32)[labels] - 1)


@pytest.mark.parametrize("banked", [False, True], ids=["", "bank"])
@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
def test_separation_attains_the_generative_losss_bound(labels, banked):
    """Minus the entropy of the labels, and of how much a bank widens the batch."""
    bank = filled_bank() if banked else None
    own = jnp.asarray(labels)
    bound = float(bound_of(own, C, bank))
    weights = 0.5 + 0.5 + 0.25 + 0.25 if banked else 0.0
    expected = -entropy(labels) - math.log(1 + weights / len(labels))
    assert bound == pytest.approx(expected, rel=1e-6, abs=1e-7)
    loss = jax.jit(lambda F: generative_loss(F, own, bank))
    losses = [float(loss(separated(labels, peak))) for peak in (0, 1, 3, 100)]
    assert losses == sorted(losses, reverse=True)
    # Scores of 100 are rounded to 4e-6.
    assert losses[-1] == pytest.approx(bound, abs=1e-5)


@pytest.mark.parametrize("banked", [False, True], ids=["", "bank"])
@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
def test_no_scores_have_a_generative_loss_under_its_bound(labels, banked):
    own, bank = jnp.asarray(labels), filled_bank() if banked else None
    noise = np.random.default_rng(0).standard_normal((20, len(labels), C), np.float32)
    near = separated(labels, 3.0)[None]
    losses = jax.jit(jax.vmap(lambda F: generative_loss(F, own, bank)))
    bound = float(bound_of(own, C, bank))
    for F in (30 * noise, near + noise):
        assert losses(F).min() >= bound - 1e-5


def test_the_bound_is_log_n_only_if_no_two_images_are_alike():
    assert generative_bound(jnp.arange(4), 9) == pytest.approx(-math.log(4))
    assert generative_bound(jnp.arange(8) % 4, 9) == pytest.approx(-math.log(4))


@pytest.mark.parametrize(
    ("n", "classes", "expected"), [(64, 10, -2.23), (256, 1_000, -5.38)], ids=["lenet", "imagenet"]
)
def test_the_bound_of_random_batches(n, classes, expected):
    labels = jax.random.randint(jax.random.key(0), (500, n), 0, classes)
    bounds = np.asarray(jax.jit(jax.vmap(lambda one: generative_bound(one, classes)))(labels))
    assert abs(bounds.mean() - expected) < 0.005 + 3 * bounds.std() / 500**0.5


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
def test_separation_leaves_an_image_the_ess_of_its_classs_images(labels):
    own = jnp.asarray(labels)
    expected = np.mean(np.bincount(labels)[labels])
    assert separated_ess_of(own, C) == pytest.approx(expected)
    assert ess_of(separated(labels, 100.0), own) == pytest.approx(expected, rel=1e-4)


def test_a_constant_added_to_a_column_leaves_the_generative_loss():
    F = jnp.asarray(random_scores(), jnp.float32)
    shift = jnp.asarray([3.0, -5.0, 0.5, 20.0])[None, :]
    labels = jnp.asarray(LABELS)
    before, after = generative_loss(F, labels), generative_loss(F + shift, labels)
    np.testing.assert_allclose(after, before, atol=2e-6)  # scores of 20 are rounded to 2e-6
    assert discriminative_loss(F + shift, labels) != discriminative_loss(F, labels)


def test_a_constant_added_to_a_row_leaves_the_discriminative_loss():
    F = jnp.asarray(random_scores(), jnp.float32)
    labels, shift = jnp.asarray(LABELS), jnp.arange(N)[:, None].astype(jnp.float32)
    before, after = discriminative_loss(F, labels), discriminative_loss(F + shift, labels)
    np.testing.assert_allclose(after, before, atol=2e-6)
    assert generative_loss(F + shift, labels) != generative_loss(F, labels)


@pytest.mark.parametrize("value", [1e3, -1e3, 1e30])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_large_scores_overflow_neither_loss_nor_gradient(name, value):
    F = jnp.asarray([[value, 0.0], [0.0, value], [value, value]])
    loss, gradient = WITH_GRADIENT[name](F, jnp.asarray([0, 1, 1]))
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_through_a_network_the_last_bias_gets_no_generative_gradient(random_params):
    params = random_params(SMALL)
    images = 100 * jax.random.normal(jax.random.key(0), (16, 28, 28, 1))
    labels = jnp.arange(16) % 10

    def gradient(loss):
        return jax.jit(jax.grad(lambda params: loss(scores(SMALL, params, images), labels)))(params)

    generative = gradient(generative_loss)["fc4"]
    # Zero in exact arithmetic; in float32 the rounding of sum_j W[j,y] = 1.
    assert np.abs(generative["bias"]).max() < 1e-7
    assert np.abs(generative["kernel"]).max() > 1e-2
    assert np.abs(gradient(discriminative_loss)["fc4"]["bias"]).max() > 1e-2


def test_a_hybrid_without_a_share_of_one_loss_is_the_other_to_the_bit():
    F, labels = jnp.asarray(random_scores(), jnp.float32), jnp.asarray(LABELS)
    alpha = jnp.arange(C, dtype=jnp.float32)
    assert hybrid_loss(F, labels, alpha=alpha, share=0.0) == generative_loss(F, labels)
    assert hybrid_loss(F, labels, alpha=alpha, share=1.0) == discriminative_loss(
        F + alpha[None, :], labels
    )


def test_a_hybrids_gradient_is_no_larger_than_the_larger_of_its_parts():
    # What keeps its rate comparable: the plain sum's would be up to twice as large.
    F, labels, alpha = jnp.asarray(random_scores(), jnp.float32), jnp.asarray(LABELS), jnp.zeros(C)
    sizes = [
        float(jnp.linalg.norm(jax.grad(hybrid_loss)(F, labels, alpha=alpha, share=share)))
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert max(sizes[1:-1]) <= max(sizes[0], sizes[-1]) * (1 + 1e-6)


# The bank of earlier scores.


def filled_bank(decay=0.5):
    """Five rows: two of the step before, two of the one before that, and room for one more."""
    rows = jnp.asarray(np.random.default_rng(5).normal(0, 2, (4, C)), jnp.float32)
    return Bank.empty(5, C).push(rows[:2], decay).push(rows[2:], decay)


def test_a_bank_holds_the_last_rows_with_weights_that_fade():
    bank = filled_bank()
    np.testing.assert_allclose(np.exp(bank.log_weight), [0.5, 0.5, 0.25, 0.25, 0], rtol=1e-6)
    rows = np.random.default_rng(5).normal(0, 2, (4, C)).astype(np.float32)
    np.testing.assert_array_equal(bank.scores[:4], rows[[2, 3, 0, 1]])
    later = bank.push(jnp.zeros((3, C)), 0.5)
    np.testing.assert_allclose(np.exp(later.log_weight), [0.5, 0.5, 0.5, 0.25, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(later.scores[3:], rows[[2, 3]])
    small = Bank.empty(2, C).push(jnp.asarray(random_scores(), jnp.float32), 1.0)
    np.testing.assert_array_equal(small.scores, random_scores()[:2].astype(np.float32))


def test_an_empty_bank_changes_neither_loss_nor_gradient():
    F, labels = jnp.asarray(random_scores(), jnp.float32), jnp.asarray(LABELS)
    for share in (0.0, 0.3, 1.0):
        without, within = (
            jax.value_and_grad(hybrid_loss)(F, labels, alpha=jnp.zeros(C), share=share, bank=bank)
            for bank in (None, Bank.empty(5, C))
        )
        np.testing.assert_allclose(within[0], without[0], atol=1e-6)
        np.testing.assert_allclose(within[1], without[1], atol=1e-6)


def test_with_a_bank_loss_and_gradient_are_their_written_out_sums():
    F, bank = random_scores(), filled_bank()
    weight, rows = np.exp(np.asarray(bank.log_weight, np.float64)), np.asarray(bank.scores)
    Z = (np.exp(F).sum(0) + weight @ np.exp(rows)) / (N + weight.sum())
    loss, gradient = 0.0, np.zeros((N, C))
    for i, y in enumerate(LABELS):
        loss -= (F[i, y] - math.log(Z[y])) / N
        gradient[i, y] -= 1 / N
        gradient[:, y] += np.exp(F[:, y]) / Z[y] / N / N
    actual = jax.value_and_grad(generative_loss)(
        jnp.asarray(F, jnp.float32), jnp.asarray(LABELS), bank
    )
    np.testing.assert_allclose(actual[0], loss, rtol=1e-5)
    np.testing.assert_allclose(actual[1], gradient, atol=1e-6)


def test_scores_that_rise_above_the_banks_are_pulled_back():
    # The batch alone can't tell (see above); the bank can.
    labels, bank = jnp.asarray(LABELS), Bank.empty(7, C).push(jnp.zeros((7, C)), 1.0)
    gradient_of = jax.jit(jax.grad(generative_loss))
    for shift in (1.0, -1.0):
        gradient = gradient_of(jnp.full((N, C), shift), labels, bank)
        assert np.sign(float(gradient.sum())) == shift


def test_a_bank_of_current_scores_takes_away_most_of_the_batchs_bias():
    """With f(x) = w x at w = 1 and q = N(0, 1): p = N(1, 1), so that E_p[df/dw] = 1."""
    batches, n, rows = 4_000, 4, 400
    x = jax.random.normal(jax.random.key(0), (batches, n + rows))

    def estimate(x, banked):
        bank = Bank.empty(rows, 1).push(x[n:, None], 1.0) if banked else None

        def loss(w):
            return generative_loss(w * x[:n, None], jnp.zeros(n, jnp.int32), bank)

        return jax.grad(loss)(1.0) + jnp.mean(x[:n])

    alone, banked = (
        np.asarray(jax.jit(jax.vmap(partial(estimate, banked=banked)))(x))
        for banked in (False, True)
    )
    # Five standard errors: the weights' variance is e - 1.
    assert abs(banked.mean() - 1) < 5 * banked.std() / batches**0.5
    assert alone.mean() - 1 < -10 * alone.std() / batches**0.5


# Effective sample size.


def test_importance_ess_is_that_of_the_explicit_weights():
    F = random_scores()
    W = importance_weights(F)
    expected = np.mean([1 / np.sum(W[:, y] ** 2) for y in LABELS])
    actual = importance_ess(jnp.asarray(F, jnp.float32), jnp.asarray(LABELS))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)  # exp of float32 sums


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 1_000.0])
def test_importance_ess_lies_between_one_and_the_number_of_images(scale):
    ess = float(
        importance_ess(jnp.asarray(random_scores(scale=scale), jnp.float32), jnp.asarray(LABELS))
    )
    # exp(2 lse(F) - lse(2F)): with scores of 1,000 the logarithms are rounded to 1e-4.
    assert 1 - 1e-3 < ess < N * (1 + 1e-5)


def test_importance_ess_is_n_for_equal_scores_and_one_for_a_single_image():
    labels = jnp.asarray(LABELS)
    assert importance_ess(jnp.full((N, C), 3.0), labels) == pytest.approx(N, rel=1e-5)
    single = jnp.zeros((N, C)).at[2].set(200.0)
    assert importance_ess(single, labels) == pytest.approx(1, rel=1e-4)


# log Z and alpha.


@pytest.mark.parametrize("batch", [1, 3, 7, 50])
def test_streaming_log_mean_exp_is_that_of_one_pass(batch):
    F = random_scores(50, C, scale=4.0)
    running = LogMeanExp.zero(C)
    for start in range(0, 50, batch):
        running = running.add(jnp.asarray(F[start : start + batch], jnp.float32))
    np.testing.assert_allclose(running.value(), np.log(np.exp(F).mean(0)), rtol=1e-5)


@pytest.mark.parametrize("size", [1_000.0, -1_000.0, 1e6])
def test_log_mean_exp_of_large_scores_does_not_overflow(size):
    running = LogMeanExp.zero(2)
    for part in ([[size, 0.0], [size, size]], [[size, 0.0], [size, 0.0]]):
        running = running.add(jnp.asarray(part))
    # The second column: one of four scores is `size`, the rest 0.
    expected = [size, np.logaddexp(size - np.log(4), np.log(3 / 4))]
    np.testing.assert_allclose(running.value(), expected, rtol=1e-6)


@pytest.mark.parametrize("batch", [5, 12])
def test_scores_plus_alpha_are_bayes_posterior(batch):
    # Twelve images, q uniform over them, three classes: p_y(x) = exp f_y(x) q(x) / Z_y by
    # enumeration, and p(y|x) = rho_y p_y(x) / sum_c rho_c p_c(x).
    random = np.random.default_rng(2)
    f = random.normal(0, 2, (12, 3)) + np.asarray([0.0, 7.0, -4.0])  # biases nobody trained
    q = np.full(12, 1 / 12)
    Z = (q[:, None] * np.exp(f)).sum(0)
    p = np.exp(f) * q[:, None] / Z
    np.testing.assert_allclose(p.sum(0), 1)
    counts = np.asarray([20, 50, 30])
    joint = counts / 100 * p
    posterior = joint / joint.sum(1, keepdims=True)

    F = jnp.asarray(f, jnp.float32)
    running = LogMeanExp.zero(3)
    for start in range(0, 12, batch):
        running = running.add(F[start : start + batch])
    alpha = class_offsets(running.value(), counts)
    np.testing.assert_allclose(running.value(), np.log(Z), rtol=1e-5)
    np.testing.assert_allclose(
        jax.nn.softmax(F + alpha[None, :]), posterior, rtol=1e-4, atol=1e-7
    )  # exp of float32 scores of order 10
    # Without alpha, the untrained biases decide.
    assert (jnp.argmax(F, 1) == 1).all()
    assert set(np.argmax(posterior, 1)) == {0, 1, 2}


SHARDED = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ppl_cnn.inference.training.losses import discriminative_loss, generative_loss

mesh = Mesh(np.asarray(jax.devices()), ("data",))
assert mesh.size == 2
rows = NamedSharding(mesh, PartitionSpec("data"))
random = np.random.default_rng(0)
x, w = (random.normal(size=shape).astype(np.float32) for shape in ((8, 5), (5, 3)))
labels = np.arange(8) % 3
for loss in (generative_loss, discriminative_loss):
    step = jax.jit(jax.value_and_grad(lambda w, x, labels: loss(x @ w, labels)))
    alone = step(w, jnp.asarray(x), jnp.asarray(labels))
    spread = step(w, jax.device_put(x, rows), jax.device_put(labels, rows))
    halves = [step(w, x[part], labels[part])[0] for part in (slice(0, 4), slice(4, 8))]
    apart = (abs(a - b).max() for a, b in zip(alone, spread))
    print(*map(float, apart), abs(np.mean(halves) - alone[0]))
"""


def test_a_batch_over_two_devices_has_the_same_losses_and_gradients():
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    generative, discriminative = (map(float, line.split()) for line in done.stdout.splitlines())
    loss, gradient, halves_apart = generative
    assert max(loss, gradient) < 1e-6
    assert halves_apart > 1e-2  # the mean over shards of their own losses is another loss
    loss, gradient, halves_apart = discriminative
    assert max(loss, gradient, halves_apart) < 1e-6
