import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from ppl_cnn import ArgumentError, MismatchError, ModuleNetwork
from ppl_cnn.models.trained.modules.inference_mode import inference_arguments

SHAPE = (6, 6, 3)


class Normed(nnx.Module):
    """A mean, a batch norm whose running averages are not those of a batch, and a dropout."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.bn = nnx.BatchNorm(3, rngs=rngs)
        self.bn.mean[...] = jnp.asarray([1.0, 2.0, 3.0])
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(3, 4, rngs=rngs)

    def scores(self, x, **options):
        return self.out(self.drop(self.bn(x.mean((1, 2)), **options)))

    def __call__(self, x):
        return self.scores(x)


class Train(Normed):
    def __call__(self, x, train):
        return self.scores(x, use_running_average=not train)


class TrainByDefault(Normed):
    def __call__(self, x, *, train: bool = True):
        return self.scores(x, use_running_average=not train)


class Training(Normed):
    def __call__(self, x, training: bool = True):
        return self.scores(x, use_running_average=not training)


class Averages(Normed):
    def __call__(self, x, use_running_average: bool = False):
        return self.scores(x, use_running_average=use_running_average)


class Deterministic(Normed):
    def __call__(self, x, deterministic: bool = False):
        return self.scores(x, use_running_average=deterministic)


class InLinen(linen.Module):
    """A convolution, a batch norm and a dense layer of a block, with Caffe-like names."""

    @linen.compact
    def __call__(self, x, train: bool = True):
        x = linen.relu(linen.Conv(4, (3, 3), name="conv")(x))
        x = linen.BatchNorm(use_running_average=not train, name="bn")(x)
        self.sow("intermediates", "features", x)
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(2, name="dense")(x.mean((1, 2)))


def bridged() -> nnx.Module:
    module = nnx.bridge.ToNNX(InLinen(), rngs=nnx.Rngs(0))
    return nnx.bridge.lazy_init(module, jnp.zeros((1, *SHAPE)))


class AroundLinen(nnx.Module):
    def __init__(self):
        self.inner = bridged()

    def __call__(self, x):
        return self.inner(x, train=False)


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).normal(10, 30, (3, *SHAPE)), jnp.float32)


@pytest.mark.parametrize("kind", [Normed, Train, TrainByDefault, Training, Averages, Deterministic])
def test_a_call_is_in_inference_mode_whatever_its_parameter_is_named(kind, images):
    network, truth = ModuleNetwork(kind(), SHAPE), Normed()
    truth.eval()
    np.testing.assert_allclose(network(images), truth(images), rtol=1e-5)
    np.testing.assert_allclose(network(images[:1]), truth(images)[:1], rtol=1e-5)


def test_a_call_without_such_a_parameter_gets_none():
    assert inference_arguments(Normed()) == {}
    assert inference_arguments(nnx.Module()) == {}
    assert inference_arguments(Deterministic()) == {"deterministic": True}
    assert inference_arguments(InLinen()) == {"train": False}


class BatchStatistics(Normed):
    def __call__(self, x):
        return self.scores(x, use_running_average=False)


class Standardised(Normed):
    """Normalised by all pixels of the batch, as a hand-written preprocessing may do."""

    def __call__(self, x):
        return self.scores((x - x.mean()) / x.std())


class Noisy(Normed):
    def __call__(self, x):
        return self.scores(x + jax.random.normal(jax.random.key(0), x.shape) * 100)


class Attending(Normed):
    """Attends to the whole batch, as a transposed axis makes it."""

    def __call__(self, x):
        return self.scores(x + x[::-1])


class ZeroHead(BatchStatistics):
    """Its scores are all 0, as at the start of many trainings."""

    def __init__(self):
        super().__init__()
        self.out.kernel[...] = jnp.zeros((3, 4))


@pytest.mark.parametrize("kind", [BatchStatistics, Standardised, Noisy, Attending, ZeroHead])
def test_a_module_whose_responses_depend_on_the_batch_is_refused(kind, refused):
    with refused(kind.__name__, "layer bn", kind=MismatchError):
        ModuleNetwork(kind(), SHAPE)


class HalfPrecision(nnx.Module):
    def __init__(self):
        rngs, kind = nnx.Rngs(0), jnp.bfloat16
        self.conv = nnx.Conv(3, 8, (3, 3), dtype=kind, param_dtype=kind, rngs=rngs)

    def __call__(self, x):
        return self.conv(x.astype(jnp.bfloat16)).mean((1, 2))


class Constant(nnx.Module):
    def __call__(self, x):
        return jnp.zeros((len(x), 2))


@pytest.mark.parametrize("kind", [HalfPrecision, Constant])
def test_rounding_and_constants_are_no_dependence(kind):
    assert ModuleNetwork(kind(), SHAPE).layers["output"]


class Squeezed(nnx.Module):
    def __call__(self, x):
        return jnp.squeeze(x.mean((1, 2)))


class Pair(nnx.Module):
    def __call__(self, x):
        return x.mean((1, 2)), x


@pytest.mark.parametrize(("kind", "said"), [(Squeezed, "(3,) and (2, 3)"), (Pair, "no array")])
def test_what_is_returned_in_place_of_scores_is_said(kind, said, refused):
    with refused(kind.__name__, said, kind=ArgumentError):
        ModuleNetwork(kind(), SHAPE)


@pytest.mark.parametrize(("make", "prefix"), [(bridged, ""), (AroundLinen, "inner.")])
def test_a_linen_module_opens_through_the_bridge(make, prefix, images):
    module = make()
    module.image_shape = SHAPE  # an attribute that Flax's own bridge can't be called with
    network = ModuleNetwork(module, SHAPE)
    names = ("conv", "bn", "features", "dense")
    assert [name for name in names if f"{prefix}{name}" not in network.layers] == []
    truth = bridged()(images, train=False)
    np.testing.assert_allclose(network(images), truth, rtol=1e-5, atol=1e-6)
    unit = network.unit(f"{prefix}conv:1")
    assert unit.shape == (3, 3, 3)
    gradient = jax.grad(unit.score, 1)(unit.params, jnp.ones(unit.shape))
    np.testing.assert_allclose(
        gradient, network.weights[f"{prefix}conv.kernel"][..., 1], rtol=1e-4, atol=1e-6
    )


def test_a_bridged_module_is_named_after_the_linen_module():
    assert ModuleNetwork(bridged(), SHAPE).name == "InLinen"


class WithSoftmax(nnx.Module):
    def __init__(self, dtype):
        self.out = nnx.Linear(3, 4, dtype=dtype, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return jax.nn.softmax(self.out(x.mean((1, 2))))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_probabilities_in_place_of_logits_are_refused(dtype, refused):
    with refused("WithSoftmax returns probabilities", "logits", kind=MismatchError):
        ModuleNetwork(WithSoftmax(dtype), SHAPE)
