import os
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.models.formats.weights_file import read_tensors
from ppl_cnn.models.generators.dcgan import CONVOLUTIONS, NORMS, open_dcgan
from ppl_cnn.models.generators.loading import load_generator

LATENT, CHANNELS = 3, 3
WIDTHS = (5, 4, 3, 2)


def state(channels=CHANNELS, seed=0):
    """A small state dict; the weights' scale keeps most pixels off black and white."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, (read, given) in zip(
        CONVOLUTIONS, pairwise((LATENT, *WIDTHS, channels)), strict=True
    ):
        tensors[f"{name}.weight"] = rng.normal(size=(read, given, 4, 4)) * 0.5 / read**0.5
    for name, width in zip(NORMS, WIDTHS, strict=True):
        tensors[f"{name}.weight"] = rng.uniform(0.5, 1.5, width)
        tensors[f"{name}.bias"] = rng.normal(size=width) * 0.3
        tensors[f"{name}.running_mean"] = rng.normal(size=width) * 0.3
        tensors[f"{name}.running_var"] = rng.uniform(0.2, 1.0, width)
    tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
    return tensors | {f"{name}.num_batches_tracked": np.array(7) for name in NORMS}


def saved(tensors, folder, prefix=""):
    path = folder / "generator.safetensors"
    safetensors.numpy.save_file({prefix + name: array for name, array in tensors.items()}, path)
    return path


def transposed(x, weight, *, stride, padding):
    """Adds each pixel's kernel to the output where it belongs, as the definition says."""
    (rows, cols, _), (_, given, side, _) = x.shape, weight.shape
    size = [(extent - 1) * stride + side for extent in (rows, cols)]
    y = np.zeros((*size, given))
    for i, j in np.ndindex(rows, cols):
        patch = np.einsum("c,cokl->klo", x[i, j], weight)
        y[i * stride : i * stride + side, j * stride : j * stride + side] += patch
    return y[padding : size[0] - padding, padding : size[1] - padding]


def expected(tensors, z):
    """The image of one latent vector, layer by layer in float64."""
    t = {name: np.asarray(array, np.float64) for name, array in tensors.items()}
    x = np.asarray(z, np.float64)[None, None]
    for name, norm in zip(CONVOLUTIONS, (*NORMS, None), strict=True):
        first = name == CONVOLUTIONS[0]
        x = transposed(x, t[f"{name}.weight"], stride=1 if first else 2, padding=0 if first else 1)
        if norm is not None:
            x = (x - t[f"{norm}.running_mean"]) / np.sqrt(t[f"{norm}.running_var"] + 1e-5)
            x = np.maximum(x * t[f"{norm}.weight"] + t[f"{norm}.bias"], 0)
    return 127.5 * (np.tanh(x) + 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("prefix", ["", "netG_state_dict."])
def test_images_are_those_of_the_layers_one_by_one(channels, prefix, tmp_path):
    tensors = state(channels)
    path = saved(tensors, tmp_path, prefix)
    generator = load_generator(f"{path}@dcgan64")
    assert generator.name == f"{path}@dcgan64"
    assert generator.latent_shape == (LATENT,)
    assert generator.image_shape == (64, 64, channels)
    z = jax.random.normal(jax.random.key(0), (2, 3, LATENT))
    actual = generator(z)
    assert actual.shape == (2, 3, 64, 64, channels)
    for index in ((0, 0), (1, 2)):
        np.testing.assert_allclose(actual[index], expected(tensors, z[index]), atol=2e-3)
        np.testing.assert_allclose(generator(z[index]), actual[index], atol=1e-3)
    assert np.ptp(np.asarray(actual)) > 50


def test_the_gradient_is_that_of_finite_differences(tmp_path):
    """Along a direction, inside a loop as samplers take it."""
    tensors = state()
    generator = open_dcgan(saved(tensors, tmp_path), name="small")
    rng = np.random.default_rng(1)
    z, direction = rng.normal(size=LATENT), rng.normal(size=LATENT)
    weights = rng.normal(size=(64, 64, CHANNELS))

    def score(z):
        return jnp.sum(jnp.asarray(weights, jnp.float32) * generator(z)) / 1e3

    def slope(z):
        return np.sum(weights * expected(tensors, z)) / 1e3

    looped = jax.jit(lambda z: jax.lax.map(jax.grad(score), z[None])[0])
    actual = float(looped(jnp.asarray(z, jnp.float32)) @ jnp.asarray(direction, jnp.float32))
    step = 1e-6
    finite = (slope(z + step * direction) - slope(z - step * direction)) / (2 * step)
    assert actual == pytest.approx(finite, rel=1e-3)


def test_a_published_file_makes_images():
    """The file of faces that `tests/fetch_real_inputs.py` fetches; its name isn't its format."""
    folder = os.environ.get("PPL_CNN_REAL_WEIGHTS")
    if not folder:
        pytest.skip("PPL_CNN_REAL_WEIGHTS names no folder of published weights")
    (path,) = Path(folder).glob("gan_face_generate/**/weights.tar")
    generator = load_generator(f"{path}@dcgan64")
    assert (generator.latent_shape, generator.image_shape) == ((100,), (64, 64, 3))
    z = jax.random.normal(jax.random.key(0), (2, 100))
    tensors = {
        name.removeprefix("netG_state_dict."): array for name, array in read_tensors(path).items()
    }
    np.testing.assert_allclose(generator(z)[1], expected(tensors, z[1]), atol=0.05)


def test_generators_are_equal_by_their_weights(tmp_path):
    generator = open_dcgan(saved(state(), tmp_path), name="a")
    assert generator == open_dcgan(saved(state(), tmp_path, "module."), name="b")
    assert generator != open_dcgan(saved(state(seed=1), tmp_path), name="a")


def changed(**arrays):
    return state() | {name.replace("__", "."): array for name, array in arrays.items()}


def without(name):
    return {key: array for key, array in state().items() if key != name}


VAR = np.full(WIDTHS[0], -1.0, np.float32)
NAN = np.full(WIDTHS[0], np.nan, np.float32)
TWO = {f"{who}.{name}": array for who in ("ema", "raw") for name, array in state().items()}


@pytest.mark.parametrize(
    ("tensors", "kind", "facts"),
    [
        ({"conv1.weight": np.zeros((2, 2), np.float32)}, MismatchError, ["conv1.weight", "DCGAN"]),
        (TWO, MismatchError, ["2 of them"]),
        (without("main.9.weight"), MismatchError, ["lacks main.9.weight"]),
        (changed(main__15__weight=VAR), MismatchError, ["main.15.weight"]),
        (changed(main__4__bias=VAR), MismatchError, ["main.4.bias", "(5,)", "(4,)"]),
        (state(channels=2), MismatchError, ["2 channels"]),
        (changed(main__1__running_var=VAR), FileError, ["negative variance"]),
        (changed(main__1__bias=NAN), FileError, ["main.1.bias", "finite"]),
    ],
)
def test_other_files_are_refused(tensors, kind, facts, tmp_path, refused):
    path = saved(tensors, tmp_path)
    with refused(str(path), *facts, kind=kind):
        open_dcgan(path, name="small")
