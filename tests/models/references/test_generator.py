"""References of generators: what R is, how texts name them, and what they refuse."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpyro.infer.util import initialize_model, log_density
from PIL import Image

import ppl_cnn
from ppl_cnn import GeneratorReference, Preprocessing, ScoreFunction, TiltedDensity
from ppl_cnn.errors import ArgumentError, FileError, MismatchError, UnknownNameError
from ppl_cnn.models.generators.generator import Generator
from ppl_cnn.models.generators.user_generators import user_generator
from ppl_cnn.models.references.parsing import parse_reference
from ppl_cnn.models.references.reference import Reference

GREY = Preprocessing((50.0,), (1.0,), "grey")
MEAN = (10.0, 20.0, 30.0)


@pytest.fixture(autouse=True)
def _where_the_example_is(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])


def constant(image):
    """G(z) = image + z, z a number."""
    image = np.asarray(image, np.float32)
    return GeneratorReference.of(lambda z: image + z[0], latent_shape=(1,), name="constant")


def pushed(reference, shape, preprocessing, z):
    return reference.distribution(shape, preprocessing).transforms[0](jnp.asarray(z, jnp.float32))


RGB = np.random.default_rng(0).uniform(0, 255, (4, 6, 3))


def test_pixels_stay_as_they_are_where_the_sizes_agree():
    image = pushed(constant(RGB[..., :1]), (4, 6, 1), GREY, [0.0])
    np.testing.assert_array_equal(image, RGB[..., :1].astype(np.float32) - 50)


@pytest.mark.parametrize(("order", "step"), [("RGB", 1), ("BGR", -1)])
def test_channels_are_the_networks(order, step):
    network = Preprocessing(MEAN, (1.0,) * 3, order)
    image = pushed(constant(RGB), (4, 6, 3), network, [0.0])
    np.testing.assert_allclose(image, RGB[..., ::step] - MEAN, rtol=1e-5)
    grey = pushed(constant(RGB[..., :1]), (4, 6, 3), network, [0.0])
    np.testing.assert_allclose(grey, RGB[..., [0, 0, 0]] - MEAN, rtol=1e-5)


def test_colours_become_luma():
    image = pushed(constant(RGB), (4, 6, 1), GREY, [0.0])
    luma = RGB @ [0.299, 0.587, 0.114] - 50
    np.testing.assert_allclose(image[..., 0], luma, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [(4, 4), (4, 16), (9, 5), (2, 3)])
def test_other_sizes_are_those_of_pillows_cubic_interpolation(size):
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 8, 1)).astype(np.float32)
    image = pushed(constant(pixels), (*size, 1), GREY, [0.0])
    rows, columns = size
    expected = Image.fromarray(pixels[..., 0]).resize((columns, rows), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(image[..., 0] + 50, np.asarray(expected), atol=2e-3)


def test_the_reference_is_one_with_weights_and_a_latent_of_any_rank():
    from own_generator import waves

    reference = GeneratorReference.of(waves)
    assert isinstance(reference, Reference)
    score = ScoreFunction(jnp.mean, (10, 12, 3), MEAN)
    density = TiltedDensity(score, reference)
    assert density.latent_shape == (2, 3)
    assert not density.has_stein_mean
    z = jax.random.normal(jax.random.key(0), (4, 5, 2, 3))
    images = density.push(z)
    assert images.shape == (4, 5, 10, 12, 3)
    np.testing.assert_allclose(
        images[2, 3], np.asarray(waves(z[2, 3])) - MEAN, rtol=1e-4, atol=1e-3
    )
    assert reference.distribution((10, 12, 3), score.preprocessing).event_shape == (10, 12, 3)


def test_weights_are_arguments_of_programs():
    from own_generator import ready

    density = TiltedDensity(ScoreFunction(jnp.mean, (12, 12, 1)), GeneratorReference.of(ready))
    assert sum(leaf.size for leaf in jax.tree.leaves(density.params.reference)) > 900
    z = jnp.ones(6)
    program = jax.make_jaxpr(density.log_density)(z, density.params)
    assert sum(np.size(each) for each in program.consts) < 10
    darker = density.params._replace(
        reference=jax.tree.map(lambda leaf: 0.0 * leaf, density.params.reference)
    )
    assert density.tilt(z, darker) == pytest.approx(127.5)  # the sigmoid of 0
    assert density.tilt(z) == density.tilt(z, density.params) != density.tilt(z, darker)


def test_a_unit_sees_the_crop_of_the_whole_image():
    from own_generator import generator

    network = ppl_cnn.load("alexnet-fashion")
    unit = network.unit("conv1:5@3,7")
    density = TiltedDensity(unit, GeneratorReference.of(generator()))
    z = jnp.linspace(-1.0, 1.0, 6)
    whole = pushed(density.reference, network.image_shape, network.preprocessing, z)
    crop = whole[unit.rows.start : unit.rows.stop, unit.cols.start : unit.cols.stop]
    np.testing.assert_allclose(density.push(z), crop, atol=1e-4)


def test_numpyros_whitened_model_is_the_potential_and_images_have_no_density(refused):
    density = TiltedDensity(
        ScoreFunction(lambda x: jnp.sum(jnp.sin(x / 30)), (4, 6, 1)), constant(RGB), 0.5
    )
    model = initialize_model(jax.random.key(0), density.whitened)
    assert list(model.param_info.z) == ["image_base"]
    for z in ([0.3], [-40.0]):
        found = model.potential_fn({"image_base": jnp.asarray(z)})
        expected = density.potential(jnp.asarray(z)) + np.log(2 * np.pi) / 2
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    with refused("whitened", "constant", kind=MismatchError):
        log_density(density.model, (), {}, {"image": density.push(jnp.zeros(1))})
    with refused("inverted", kind=MismatchError):
        density.pull(density.push(jnp.zeros(1)))


@pytest.mark.parametrize("attribute", ["generator", "ready", "waves"])
def test_a_text_names_a_generator_of_ones_own(attribute):
    reference = parse_reference(f"own_generator:{attribute}")
    digest = reference.generator.digest
    assert str(reference) == f"generator:own_generator:{attribute}@{digest}"
    assert parse_reference(str(reference)) == reference
    assert hash(parse_reference(f"generator:own_generator:{attribute}")) == hash(reference)


def test_a_module_is_copied_and_put_into_inference_mode():
    from own_generator import Decoder

    module = Decoder(nnx.Rngs(0))
    before = user_generator(module)
    assert before(jnp.ones(6)).shape == (12, 12, 1)
    np.testing.assert_array_equal(before(jnp.ones(6)), before(jnp.ones(6)))
    assert not module.dropout.deterministic
    module.conv.bias[...] += 1.0
    assert user_generator(module) != before
    module.eval()
    expected = user_generator(module)(jnp.ones((2, 6)))
    np.testing.assert_allclose(expected[1], module(jnp.ones(6)), rtol=1e-5)


def test_the_digest_covers_programs_and_all_arrays():
    held = np.ones((2, 3, 1), np.float32)

    def digest(function):
        return user_generator(function, latent_shape=(2,), name="g").digest

    def scaled(by, array):
        return lambda z: by * z[:, None, None] * array

    def jitted(array):
        return jax.jit(lambda z: z[:, None, None] * array)

    assert digest(scaled(2.0, held)) == digest(scaled(2.0, held.copy()))
    several = [scaled(2.0, held), scaled(3.0, held), scaled(2.0, 2 * held)]
    several += [jitted(jnp.asarray(held)), jitted(jnp.asarray(2 * held))]
    assert len({digest(each) for each in several}) == 5


def test_another_digest_in_a_record_is_refused(refused):
    text = str(parse_reference("own_generator:waves"))
    other = text.rpartition("@")[0] + "@" + "0" * 16
    with refused("own_generator:waves", "0" * 16, text[-16:], kind=FileError):
        parse_reference(other)


@pytest.mark.parametrize(
    ("text", "kind", "facts"),
    [
        ("nosuchmodule:generator", UnknownNameError, ["generator:NAME", "MODULE:ATTRIBUTE"]),
        ("own_generator:nosuch", UnknownNameError, ["nosuch", "own_generator"]),
        ("own_generator:nnx", ArgumentError, ["latent_shape", "module"]),
        ("own_generator:Decoder", ArgumentError, ["without arguments"]),
        ("generator", ArgumentError, ["generator:NAME"]),
        ("bounded:own_generator:waves", ArgumentError, ["already", "bounded"]),
    ],
)
def test_texts_that_name_no_generator_are_refused(text, kind, facts, refused):
    with refused(*facts, kind=kind):
        parse_reference(text)


@pytest.mark.parametrize(
    ("function", "shape", "facts"),
    [
        (lambda z: z, None, ["latent_shape", "None"]),
        (lambda z: z, (0,), ["latent_shape", "(0,)"]),
        (lambda z: z, (3,), ["(row, col, channel)", "float32[3]"]),
        (lambda z: jnp.ones((2, 2, 2)), (3,), ["1 or 3 channels", "float32[2,2,2]"]),
        (lambda z: jnp.ones((2, 2, 1), int), (3,), ["floats"]),
        (lambda z: z @ jnp.ones(7), (3,), ["(3,)", "TypeError"]),
    ],
)
def test_functions_that_are_no_generators_are_refused(function, shape, facts, refused):
    with refused(*facts, kind=ArgumentError, argument="latent_shape"):
        GeneratorReference.of(function, latent_shape=shape)


def test_networks_of_other_channels_are_refused(refused):
    with refused("2 channels", kind=MismatchError):
        TiltedDensity(ScoreFunction(jnp.mean, (4, 6, 2)), constant(RGB))


def test_a_generator_object_is_its_name_and_digest():
    made = user_generator(lambda z: z[:, None, None], latent_shape=(2,), name="column")
    assert isinstance(made, Generator)
    assert made.image_shape == (2, 1, 1)
    assert str(GeneratorReference(made)) == f"generator:column@{made.digest}"
