import json
from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn import ArgumentError
from ppl_cnn.inference.sampling.driver import draw
from ppl_cnn.inference.sampling.settings import Sampling, check_seed
from ppl_cnn.models.networks.layers import Dense
from ppl_cnn.numeric import in_float32, plain_fields, single, whole

UNIT = ppl_cnn.ScoreFunction(jnp.sum, (2, 2, 1))


@dataclass(frozen=True)
class Record:
    count: int
    size: float | None
    pair: tuple[float, ...]
    text: str = "split"

    def __post_init__(self):
        plain_fields(self)


@pytest.mark.parametrize("of", [np.asarray, jnp.asarray, np.int64, np.float32, lambda value: value])
def test_numbers_of_any_library_are_pythons(of, as_in_a_program):
    record = Record(of(3), of(2), [of(1), of(2)])
    assert record == Record(3, 2, (1, 2))
    assert {type(record.count), type(record.size), *map(type, record.pair)} <= {int, float}
    assert json.loads(json.dumps(asdict(record)))["pair"] == [1, 2]
    assert hash(record) == hash(Record(3, 2, (1, 2)))


@pytest.mark.parametrize("value", [2.5, "2", None, np.float64(2), np.ones((2, 2), int), True])
def test_what_is_no_whole_number_is_refused(value, refused):
    with refused("`draws`", kind=ArgumentError, argument="draws"):
        whole("draws", value)


def test_a_random_key_is_no_seed(refused):
    with refused("key", kind=ArgumentError, argument="seed"):
        check_seed(jax.random.key(0))


@pytest.mark.parametrize("wrong", ["1", None, 1j, [10], np.ones(2)])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("temperature", lambda value: ppl_cnn.TiltedDensity(UNIT, ppl_cnn.WhiteNoise(3.0), value)),
        ("sigma", ppl_cnn.WhiteNoise),
        ("exponent", ppl_cnn.Spectral),
        ("tau", ppl_cnn.SoftLogProb),
    ],
)
def test_what_is_no_number_is_refused(make, name, wrong, refused):
    with refused(f"`{name}`", kind=ArgumentError, argument=name):
        make(wrong)


FOREIGN = [
    lambda: Sampling(chains=np.int64(2), warmup=jnp.asarray(3), target_accept=np.float32(0.5)),
    lambda: ppl_cnn.WhiteNoise(np.float64(10)),
    lambda: ppl_cnn.Band(np.int32(8)),
    lambda: ppl_cnn.Spectral(jnp.asarray(1.0)),
    lambda: ppl_cnn.SoftLogProb(np.asarray(10.0)),
    lambda: ppl_cnn.Resample(np.int64(100)),
    lambda: ppl_cnn.Rto(np.int64(100)),
    lambda: ppl_cnn.Annealed(np.int64(4)),
    lambda: ppl_cnn.Preprocessing(np.zeros(3), [np.float32(1)] * 3),
    lambda: ppl_cnn.Recipe(
        network="lenet", data="mnist", stages="generative:4", batch_size=np.int64(8)
    ),
]


KERNELS = [
    (ppl_cnn.Split, "step_size", 0.25),
    (ppl_cnn.Split, "angle", 0.5),
    (ppl_cnn.ISIR, "fresh", 8),
    (ppl_cnn.Tempered, "rungs", 4),
    (ppl_cnn.HMC, "trajectory_length", 0.5),
    (ppl_cnn.NUTS, "max_tree_depth", 3),
]


@pytest.mark.parametrize(("kernel", "name", "value"), KERNELS)
def test_kernels_take_scalars_of_numpy_and_jax(kernel, name, value, refused, as_in_a_program):
    text = str(kernel(**{name: value}))
    for of in (np.asarray, np.float64 if isinstance(value, float) else np.int64, jnp.asarray):
        assert str(kernel(**{name: of(value)})) == text
    for wrong in (str(value), np.asarray([value]), None, -1):
        with refused(f"`{name}`", kind=ArgumentError, argument=name):
            kernel(**{name: wrong})


@pytest.mark.parametrize("wrong", [2.5, "4", None])
@pytest.mark.parametrize("name", ["rungs", "chains", "draws", "particles", "temperatures", "seed"])
def test_numbers_of_evidence_are_whole(name, wrong, refused, as_in_a_program):
    with refused(f"`{name}`", kind=ArgumentError, argument=name):
        ppl_cnn.evidence([], **{name: wrong})


@pytest.mark.parametrize("make", FOREIGN)
def test_settings_take_scalars_of_numpy_and_jax(make, as_in_a_program):
    made = make()
    assert hash(made)
    foreign = np.generic | np.ndarray | jax.Array
    assert not [value for value in vars(made).values() if isinstance(value, foreign)]


def test_a_run_takes_them_too(tmp_path, as_in_a_program):
    unit = ppl_cnn.ScoreFunction(jnp.sum, [np.int64(2), 2, 1], np.zeros(1))
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(3.0), jnp.asarray(9.0))
    counts = {"chains": np.int64(2), "draws": np.asarray(3), "warmup": jnp.asarray(2)}
    tree = draw(density, **counts, seed=np.int64(3), out=tmp_path / "run", progress=False)
    assert tree["posterior/image"].shape == (2, 3, 2, 2, 1)


def numpy_score(x):
    return np.square(x).sum()


def torch_like(x):
    raise TypeError("sum(): argument 'input' must be Tensor, not ShapedArray\nand more")


@pytest.mark.parametrize(
    "function", [jnp.argmax, lambda x: 1j * x.sum(), lambda x: x.sum() > 0, jnp.ravel]
)
def test_functions_without_a_real_number_are_refused(function, refused):
    with refused("`function`", "dtype", kind=ArgumentError, argument="function"):
        ppl_cnn.ScoreFunction(function, (2, 2, 1))


@pytest.mark.parametrize("function", [numpy_score, torch_like, lambda x, y: x])
def test_functions_of_other_libraries_are_refused(function, refused):
    with refused("`function`", "(2, 2, 1)", kind=ArgumentError, argument="function"):
        ppl_cnn.ScoreFunction(function, (2, 2, 1))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def test_in_64_bit_mode_networks_stay_float32(x64, as_in_a_program):
    assert single(jnp.ones(2)).dtype == jnp.float32
    assert single(jnp.arange(2)).dtype == jnp.int32
    assert in_float32(lambda: jnp.ones(2))().dtype == jnp.float32
    grey = ppl_cnn.Preprocessing(mean=(50.0,), scale=(0.1,), order="grey")
    declaration = ppl_cnn.Network("tiny", (2, 3, 1), grey, layers=(Dense("fc", 4),))
    kernel, bias = np.ones((6, 4)), np.zeros(4)
    network = ppl_cnn.CNN(declaration, {"fc": {"kernel": kernel, "bias": bias}})
    assert network(jnp.ones((5, 2, 3, 1))).dtype == jnp.float32
    density = ppl_cnn.TiltedDensity(network.unit("fc:1"), ppl_cnn.WhiteNoise(2.0))
    # d/dz of sum(0.1 * 2 z) - |z|^2/2, at 1
    gradient = jax.grad(density.log_density)(jnp.ones(density.latent_shape))
    assert gradient.dtype == jnp.float64
    np.testing.assert_allclose(gradient, 0.2 - 1.0, rtol=1e-6)


def test_a_run_has_the_same_bits_in_64_bit_mode():
    weights = np.linspace(-1, 1, 4).reshape(2, 2, 1)
    images = []
    for mode in (False, True):
        with jax.enable_x64(mode):
            score = ppl_cnn.ScoreFunction(lambda x: jnp.sum(jnp.float32(weights) * x), (2, 2, 1))
            density = ppl_cnn.TiltedDensity(score, ppl_cnn.WhiteNoise(1.0))
            tree = draw(density, chains=2, draws=3, warmup=2, progress=False)
            images.append(tree["posterior/image"].values)
    assert images[1].dtype == np.float32
    np.testing.assert_array_equal(*images)
