import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.models.generators.loading import load_generator

RNG = np.random.default_rng(0)
LATENT = 3
MATRIX = RNG.normal(size=(LATENT, 2 * 4 * 5)).astype(np.float32)
KERNEL = RNG.normal(size=(2, 1, 2, 2)).astype(np.float32)
Z = RNG.normal(size=(6, LATENT)).astype(np.float32)
MAP = np.asarray([-1, 2, 4, 5], np.int64)


def enlarged(maps):
    """Transposed convolution of stride 2 by the 2x2 kernel: each pixel becomes a block of four."""
    blocks = np.einsum("ncij,cokl->noikjl", maps, KERNEL)
    return blocks.reshape(len(maps), 1, 8, 10)


def images_of(z):
    return enlarged((z @ MATRIX).reshape(-1, 2, 4, 5)).transpose(0, 2, 3, 1)


@pytest.fixture
def saved(tmp_path, onnx_node, onnx_content):
    """A function of the operators at the end and of the latent's shape to a generator's file."""

    def save(*end, latent=(None, LATENT), constants=(), **others):
        nodes = [onnx_node("Reshape", "x latent", "z")] if len(latent) > 2 else []
        first = "z" if nodes else "x"
        nodes += [
            onnx_node("MatMul", f"{first} matrix", "dense"),
            onnx_node("Reshape", "dense map", "maps"),
            onnx_node("ConvTranspose", "maps kernel", "v0", strides=(2, 2)),
        ]
        for i, (operator, inputs, attributes) in enumerate(end):
            result = "y" if i == len(end) - 1 else f"v{i + 1}"
            nodes.append(onnx_node(operator, f"v{i}{inputs}", result, **attributes))
        known = {
            "matrix": MATRIX,
            "map": MAP,
            "kernel": KERNEL,
            "latent": MAP[:1],
            **dict(constants),
        }
        known["latent"] = np.asarray([-1, LATENT], np.int64)
        path = tmp_path / "g.onnx"
        path.write_bytes(onnx_content(nodes, known, image=latent, **others))
        return path

    return save


BOUNDS = {"low": np.float32(-2), "high": np.float32(2)}
ENDS = {
    "tanh": ([("Tanh", "", {})], {}, lambda x: 127.5 * (np.tanh(x) + 1)),
    "sigmoid": ([("Sigmoid", "", {})], {}, lambda x: 255 / (1 + np.exp(-x))),
    "clip": ([("Clip", " low high", {})], BOUNDS, lambda x: 255 * (np.clip(x, -2, 2) + 2) / 4),
    "rows last": (
        [("Tanh", "", {}), ("Transpose", "", {"perm": (0, 2, 3, 1)})],
        {},
        lambda x: 127.5 * (np.tanh(x) + 1),
    ),
}


@pytest.mark.parametrize("latent", [(None, LATENT), (1, LATENT, 1, 1)], ids=["vector", "map"])
@pytest.mark.parametrize("end", ENDS)
def test_images_are_those_of_the_graph(saved, end, latent):
    operators, constants, pixels = ENDS[end]
    path = saved(*operators, latent=latent, constants=constants)
    generator = load_generator(str(path))
    assert (generator.latent_shape, generator.image_shape) == ((LATENT,), (8, 10, 1))
    expected = pixels(images_of(Z.astype(np.float64)))
    np.testing.assert_allclose(generator(jnp.asarray(Z)), expected, atol=2e-3)
    by_rows = generator(jnp.asarray(Z).reshape(2, 3, LATENT))
    np.testing.assert_allclose(by_rows.reshape(expected.shape), expected, atol=2e-3)


def test_the_gradient_is_that_of_differences(saved):
    generator = load_generator(str(saved(("Tanh", "", {}))))
    z, way, step = jnp.asarray(Z[0]), jnp.asarray(Z[1]), 1e-2
    slope = jax.grad(lambda z: jnp.mean(generator(z)))(z) @ way
    ends = [jnp.mean(generator(z + sign * step * way)) for sign in (1, -1)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-2)


def test_the_digest_is_the_files(saved):
    one = load_generator(str(saved(("Tanh", "", {}))))
    assert one == load_generator(str(saved(("Tanh", "", {}))))
    assert one != load_generator(str(saved(("Sigmoid", "", {}))))


TANH = ("Tanh", "", {})
REFUSED = {
    "no range": ([("Relu", "", {})], {}, ["Relu", "Tanh"]),
    "half a range": ([("Clip", " low", {})], {}, ["Clip", "Tanh"]),
    "an image": ([TANH], {"latent": (1, 3, 8, 8)}, ["(1, 3, 8, 8)"]),
    "an open size": ([TANH], {"latent": (None, None)}, ["(?, ?)"]),
    "two inputs": ([TANH], {"inputs": {"labels": (1, 10)}}, ["2 inputs"]),
    "no image": ([TANH, ("Flatten", "", {})], {}, ["Flatten"]),
    "five columns": (
        [("Concat", " v0 v0 v0 v0", {"axis": 1}), ("Tanh", "", {})],
        {},
        ["(1, 5, 8, 10)"],
    ),
    "an operator": ([("LSTM", "", {}), ("Tanh", "", {})], {}, ["LSTM"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_generator_is_refused(saved, refused, case):
    end, others, facts = REFUSED[case]
    path = saved(*end, constants=BOUNDS, **others)
    with refused(path, *facts, kind=MismatchError):
        load_generator(str(path))


def test_a_file_that_is_missing_or_damaged_is_refused(saved, refused, tmp_path):
    with refused("nothing.onnx", kind=FileError):
        load_generator(str(tmp_path / "nothing.onnx"))
    path = saved(TANH)
    path.write_bytes(path.read_bytes()[:50])
    with refused(path, kind=FileError):
        load_generator(str(path))
