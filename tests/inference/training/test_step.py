import subprocess
import sys
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.inference.training.gradient import gradient_of, scores_and_vjp
from ppl_cnn.inference.training.losses import Bank, hybrid_loss
from ppl_cnn.inference.training.networks.declared import DeclaredTrainable
from ppl_cnn.inference.training.placement import data_mesh, put
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.step import (
    even_ess,
    initial_state,
    next_stage,
    optimizer,
    state_shardings,
    training_step,
)
from ppl_cnn.models.networks.catalogue import LENET
from ppl_cnn.models.networks.forward import dropout_masks, scores
from ppl_cnn.models.networks.layers import LRN, Conv, Dense, Dropout, ReLU
from ppl_cnn.models.trained.cnn import preprocess

N = 32
SMALL = replace(
    LENET,
    name="small",
    layers=(
        Conv("conv1", 4, kernel=5, stride=3),
        LRN("norm1"),
        Conv("conv2", 6, kernel=3, groups=2),
        Dropout("drop2", 0.2),
        Dense("fc3", 20),
        ReLU("relu3"),
        Dropout("drop3"),
        Dense("fc4", 10),
    ),
)
"""With dropout."""
PLAIN = replace(
    SMALL,
    name="plain",
    layers=tuple(layer for layer in SMALL.layers if not isinstance(layer, Dropout)),
)
SHARES = {"generative": 0.0, "hybrid": 0.3, "discriminative": 1.0}
RECIPE = Recipe(
    network="lenet",
    data="fashion-embedded",
    stages="generative:100steps,discriminative:100steps",
    batch_size=N,
    rate=0.02,
    schedule="constant",
    momentum=0.9,
    weight_decay=5e-4,
    seed=0,
)
BANKED = replace(RECIPE, reference_bank=48, reference_decay=0.5)


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (N, 28, 28, 1), np.uint8)
    return jnp.asarray(images), jnp.asarray(random.integers(0, 10, N, np.int32))


def objective(share, bank=None):
    # As an earlier stage may have left them.
    alpha = jnp.linspace(-1.0, 1.0, 10)
    return lambda F, labels: hybrid_loss(F, labels, alpha=alpha, share=share, bank=bank)


def assert_relatively_close(tree, wanted, tolerance):
    """Each array differs by less than a share of its norm, or of what is rounded in the whole."""
    # The last bias gets a generative gradient of zero, up to the rounding of its terms.
    arrays = [np.asarray(array) for array in jax.tree.leaves(wanted)]
    rounding = 1e-7 * np.sqrt(sum((array**2).sum() for array in arrays))
    for got, array in zip(jax.tree.leaves(tree), arrays, strict=True):
        scale = np.linalg.norm(array)
        assert np.linalg.norm(np.asarray(got) - array) <= tolerance * scale + rounding


def bank_of(rows, decay):
    bank = Bank.empty(rows, 10)
    for seed in (3, 4):
        bank = bank.push(jax.random.normal(jax.random.key(seed), (rows // 3, 10)), decay)
    return bank


@pytest.mark.parametrize(
    "network",
    [pytest.param(LENET, marks=pytest.mark.long), SMALL],
    ids=lambda network: network.name,
)
@pytest.mark.parametrize(
    "share",
    [
        pytest.param(share, marks=pytest.mark.long if name == "discriminative" else ())
        for name, share in SHARES.items()  # a hybrid has the discriminative loss in it
    ],
    ids=SHARES,
)
@pytest.mark.parametrize(
    "banked", [False, pytest.param(True, marks=pytest.mark.long)], ids=["", "bank"]
)
def test_a_batch_in_groups_has_the_gradient_of_one_pass(
    network, share, banked, batch, random_params
):
    """With dropout, too: against value_and_grad of loss(scores(params)) as it stands."""
    params, (images, labels) = random_params(network), batch
    keep = dropout_masks(network, jax.random.key(5), N)
    trainable = DeclaredTrainable(network)
    loss_of = objective(share, bank_of(48, 0.9) if banked else None)

    @jax.jit
    def plain(params):
        x = preprocess(images, network.preprocessing, network.image_shape)
        return loss_of(scores(network, params, x, keep=keep), labels)

    wanted = jax.value_and_grad(plain)(params)
    for groups in (1, 8):
        loss, F, gradient, _ = jax.jit(
            partial(
                gradient_of,
                network=trainable,
                objective=loss_of,
                mesh=data_mesh(),
                accumulate=groups,
                dtype="float32",
            )
        )(params, {}, (images, labels, keep))
        assert F.shape == (N, 10)
        np.testing.assert_allclose(loss, wanted[0], rtol=1e-5)
        assert_relatively_close(gradient, wanted[1], 1e-5)


def test_groups_keep_only_their_own_intermediate_values(random_params):
    """What the compiled program needs besides its arguments falls with the groups' number."""
    params = random_params(PLAIN)
    images, labels = jnp.zeros((512, 28, 28, 1), jnp.uint8), jnp.zeros(512, jnp.int32)

    def temporary(groups):
        step = jax.jit(
            partial(
                gradient_of,
                network=DeclaredTrainable(PLAIN),
                objective=objective(0.0),
                mesh=data_mesh(),
                accumulate=groups,
                dtype="float32",
            )
        )
        lowered = step.lower(params, {}, (images, labels, {}))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(8) < temporary(1) / 4


def test_score_rows_come_back_in_the_order_of_the_images():
    x = jnp.arange(12.0)[:, None]
    params = {"out": {"kernel": jnp.asarray([1.0, 2.0])}}
    F, pull_back, averages = scores_and_vjp(
        lambda w, x: (x * w["out"]["kernel"][None, :], {"mean": jnp.mean(x), "count": len(x)}),
        params,
        (x,),
        groups=4,
    )
    np.testing.assert_array_equal(F, np.arange(12)[:, None] * [[1, 2]])
    cotangent = jnp.stack([jnp.arange(12.0) == 5, jnp.arange(12.0) == 7], axis=1)
    gradient = pull_back(cotangent.astype(jnp.float32))
    np.testing.assert_array_equal(gradient["out"]["kernel"], [5, 7])
    assert averages == {"mean": 5.5, "count": 3}


@cache
def jitted(recipe, number=0, groups=1):
    """The compiled step of a stage, and the state that it begins with."""
    stage = recipe.parsed_stages[number]
    rule = optimizer(recipe, stage, 100)
    state = jax.jit(partial(initial_state, DeclaredTrainable(PLAIN), recipe, rule=rule))(
        key=jax.random.key(1)
    )
    places = state_shardings(state, data_mesh(), False)
    step = partial(
        training_step,
        network=DeclaredTrainable(PLAIN),
        recipe=recipe,
        stage=stage,
        rule=rule,
        mesh=data_mesh(),
        accumulate=groups,
    )
    return jax.jit(step), put(state, places)


def test_a_step_is_sgd_with_momentum_and_decay_written_out(batch):
    recipe = replace(RECIPE, stages="hybrid:0.3:100steps@0.1:constant")
    step, state = jitted(recipe)
    weights = jax.tree.map(np.asarray, state.params)
    velocity = jax.tree.map(np.zeros_like, weights)

    @jax.jit
    @jax.grad
    def gradient_at(params):
        x = preprocess(batch[0], PLAIN.preprocessing, PLAIN.image_shape)
        return hybrid_loss(scores(PLAIN, params, x), batch[1], alpha=jnp.zeros(10), share=0.3)

    for number in range(4):
        rate = 0.1 * min(number / 2, 1)  # rises over 2 per cent of 100 steps
        gradient = jax.tree.map(np.asarray, gradient_at(weights))
        velocity = jax.tree.map(lambda v, g, w: 0.9 * v + g + 5e-4 * w, velocity, gradient, weights)
        wanted = jax.tree.map(lambda w, v, rate=rate: w - rate * v, weights, velocity)
        state, info = step(state, *batch, jax.random.key(0))
        weights = jax.tree.map(np.asarray, state.params)
        assert_relatively_close(weights, wanted, 1e-5)
        norm = np.sqrt(sum((array**2).sum() for array in gradient["conv1"].values()))
        assert float(info.gradient["conv1"]) == pytest.approx(norm, rel=1e-4)
    assert state.step == 4


@pytest.mark.long
@pytest.mark.parametrize("groups", [1, 4])
def test_a_step_without_a_finite_gradient_changes_nothing_but_its_number(batch, groups):
    step, state = jitted(BANKED, groups=groups)
    state, _ = step(state, *batch, jax.random.key(0))
    broken = state._replace(
        params={**state.params, "fc4": {**state.params["fc4"], "bias": jnp.full(10, jnp.nan)}}
    )
    after, info = step(broken, *batch, jax.random.key(0))
    assert not np.isfinite(info.loss)
    jax.tree.map(
        np.testing.assert_array_equal,
        after._replace(step=broken.step),
        broken,
    )
    assert after.step == broken.step + 1


@pytest.mark.long
def test_a_finite_loss_with_an_infinite_gradient_is_not_applied_either(batch):
    step, state = jitted(replace(RECIPE, stages="discriminative:100steps"))
    state, _ = step(state, *batch, jax.random.key(0))
    # relu3 stays at zero: F is finite, whatever conv1's gradient, 0 * inf, is.
    params = jax.tree.map(lambda x: x, state.params)
    params["fc3"] = {"kernel": params["fc3"]["kernel"] * 0, "bias": jnp.full(20, -1.0)}
    params["fc4"] = {"kernel": jnp.full((20, 10), jnp.inf), "bias": params["fc4"]["bias"]}
    state = state._replace(params=params)
    after, _ = step(state, *batch, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_bfloat16_keeps_weights_scores_and_losses_in_float32_and_is_close(batch):
    infos = {}
    for dtype in ("float32", "bfloat16"):
        step, state = jitted(replace(RECIPE, dtype=dtype))
        state, infos[dtype] = step(state, *batch, jax.random.key(0))
        assert {x.dtype for x in jax.tree.leaves((state.params, infos[dtype]))} == {
            jnp.dtype("float32")
        }
        lowered = step.lower(state, *batch, jax.random.key(0)).as_text()
        assert ("bf16" in lowered) == (dtype == "bfloat16")
    # Eight bits, through four layers with weights.
    for name in state.params:
        gradients = [float(infos[dtype].gradient[name]) for dtype in infos]
        assert gradients[0] == pytest.approx(gradients[1], rel=0.05)
    assert infos["float32"].loss != infos["bfloat16"].loss


def test_the_bank_and_the_smoothed_ess_are_kept_and_begin_anew_with_a_stage(batch):
    recipe = BANKED
    step, state = jitted(recipe, groups=4)
    even = even_ess(N, 10)
    assert state.ess == pytest.approx(even) == pytest.approx(N / (1 + 31 / 10))
    for _ in range(2):
        state, info = step(state, *batch, jax.random.key(0))
    np.testing.assert_allclose(state.bank.log_weight[:N], np.log(0.5), rtol=1e-6)
    np.testing.assert_allclose(state.bank.log_weight[N:], np.log(0.25), rtol=1e-6)
    assert info.separated_ess == np.mean(np.bincount(batch[1])[batch[1]])
    assert info.ess / info.separated_ess <= state.ess <= 1.1 * even
    later = next_stage(state, recipe, optimizer(recipe, recipe.parsed_stages[1], 100))
    assert (later.bank.log_weight == -jnp.inf).all()
    assert (later.stage, later.began, later.ess) == (1, 2, pytest.approx(even))
    assert all((x == 0).all() for x in jax.tree.leaves(later.optimizer))


SPREAD = """
import importlib.util, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ppl_cnn.inference.training.placement import data_mesh
from ppl_cnn.inference.training.gradient import gradient_of
from ppl_cnn.models.networks.forward import dropout_masks
from ppl_cnn.models.networks.initialization import he_normal
spec = importlib.util.spec_from_file_location("this", sys.argv[1])
this = importlib.util.module_from_spec(spec)
spec.loader.exec_module(this)

random = np.random.default_rng(0)
images = jnp.asarray(random.integers(0, 256, (32, 28, 28, 1), np.uint8))
labels = jnp.asarray(random.integers(0, 10, 32, np.int32))
params = he_normal(this.SMALL, jax.random.key(0))
keep = dropout_masks(this.SMALL, jax.random.key(5), 32)
alone = Mesh(np.asarray(jax.devices()[:1]), ("data",))
function = jax.jit(
    gradient_of, static_argnames=("network", "objective", "mesh", "accumulate", "dtype")
)
for share in this.SHARES.values():
    loss_of = this.objective(share)
    one, four = (
        jax.tree.map(
            np.asarray,
            function(
                params,
                {},
                (images, labels, keep),
                network=this.DeclaredTrainable(this.SMALL),
                objective=loss_of,
                mesh=mesh,
                accumulate=groups,
                dtype="float32",
            ),
        )
        for mesh, groups in ((alone, 1), (data_mesh(), 2))
    )
    this.assert_relatively_close(four, one, 1e-5)
"""


@pytest.mark.long
def test_four_devices_in_two_groups_each_have_the_gradient_of_one():
    """With dropout; the generative sum is over all of them."""
    done = subprocess.run(
        [sys.executable, "-c", SPREAD, __file__], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
