"""The DCGAN generator of 64x64 images, from a PyTorch file of its weights.

Radford, Metz and Chintala (arXiv 1511.06434) in the form of PyTorch's tutorial and of the many
files trained with it: a latent vector becomes a map of 4x4 places, which four transposed
convolutions of 4x4 entries and stride 2 double to 64x64 pixels, with batch norms and rectifiers
between them and a tanh at the end.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.models.formats.names import listed, shown
from ppl_cnn.models.formats.weights_file import read_tensors
from ppl_cnn.models.generators.generator import Generator, digest_of
from ppl_cnn.models.networks.convolution import convolve

CONVOLUTIONS = ("main.0", "main.3", "main.6", "main.9", "main.12")
"""The transposed convolutions' names in PyTorch's file, from the latent to the pixels."""
NORMS = ("main.1", "main.4", "main.7", "main.10")
"""The names of the batch norms that follow all of them but the last."""
EPSILON = 1e-5
"""What PyTorch's batch norm adds to a variance."""

_NORM_KEYS = ("weight", "bias", "running_mean", "running_var")

type Kernel = Float[np.ndarray, "c_in c_out 4 4"]
"""A transposed convolution's weight as PyTorch has it."""


class Grow(NamedTuple):
    """A transposed convolution of stride 2 with a batch norm folded into it."""

    kernel: Float[Array, "2 2 c_in 4*c_out"]
    """The plain convolution that computes it; see `_phases`."""
    bias: Float[Array, " c_out"]


class Dcgan(NamedTuple):
    """The weights of the generator, with its batch norms folded into the convolutions."""

    first: Float[Array, "latent 4 4 channel"]
    first_bias: Float[Array, " channel"]
    grow: tuple[Grow, ...]


def open_dcgan(path: Path, *, name: str) -> Generator:
    """Opens a DCGAN generator of 64x64 images.

    Args:
        path: a file of its state dict, alone or as one entry of a checkpoint. The length of the
            latent vector, the widths and the number of channels (1 or 3) are those of the weights.
        name: the generator's name.

    Raises:
        FileError: the file is missing or damaged, or has weights that aren't finite.
        MismatchError: the file holds no such generator, or several.
    """
    convolutions, norms = _state(read_tensors(path), path)
    folded = [_folded(kernel, norm) for kernel, norm in zip(convolutions, norms, strict=False)]
    folded.append((convolutions[-1], np.zeros(convolutions[-1].shape[1], np.float32)))
    (first, first_bias), *rest = folded
    params = Dcgan(
        jnp.asarray(first.transpose(0, 2, 3, 1)),
        jnp.asarray(first_bias),
        tuple(Grow(jnp.asarray(_phases(kernel)), jnp.asarray(bias)) for kernel, bias in rest),
    )
    return Generator(
        name=name,
        latent_shape=(first.shape[0],),
        image_shape=(64, 64, convolutions[-1].shape[1]),
        apply=images,
        params=params,
        digest=digest_of(params, {"architecture": "dcgan64"}),
    )


def images(
    params: Dcgan, z: Float[Array, "*batch latent"]
) -> Float[Array, "*batch row col channel"]:
    """The images of latent vectors, in pixels 0..255."""
    batch = z.shape[:-1]
    x = jnp.tensordot(z.reshape(-1, z.shape[-1]), params.first, 1)
    x = x + params.first_bias[None, None, None]
    for layer in params.grow:
        x = _grown(layer, jax.nn.relu(x))
    return 127.5 * (jnp.tanh(x) + 1).reshape(*batch, *x.shape[1:])


def _grown(layer: Grow, x: Float[Array, "n row col c_in"]) -> Float[Array, "n row2 col2 c_out"]:
    """A transposed convolution of 4x4 entries, stride 2 and padding 1, on maps."""
    phases = convolve(x, layer.kernel, stride=1, padding=((1, 1), (1, 1)))
    n, rows, cols, _ = phases.shape
    phases = phases.reshape(n, rows, cols, 2, 2, -1)
    by_row = jnp.stack([phases[:, s : s + rows - 1, :, s] for s in (0, 1)], axis=2)
    pixels = jnp.stack([by_row[:, :, :, t : t + cols - 1, t] for t in (0, 1)], axis=4)
    return pixels.reshape(n, 2 * (rows - 1), 2 * (cols - 1), -1) + layer.bias[None, None, None]


def _phases(kernel: Kernel) -> Float[np.ndarray, "2 2 c_in 4*c_out"]:
    """The kernel of a plain convolution whose channels are the four phases of a transposed one.

    Row i of the input adds w[k] to row 2i - 1 + k of the output. So the output's rows 2r + s read
    two of the input's rows, and with one row of zeros before these the rows r + s - 1 + a, a = 0 or
    1, by w[3 - s - 2a]. Columns are alike. A quarter of the multiplications is left of a
    convolution of the input with zeros between its pixels, and no gradient of it is dilated.
    """
    flipped = kernel[:, :, ::-1, ::-1]
    c_in, c_out = kernel.shape[:2]
    # flipped[s + 2a] is w[3 - s - 2a]: the entries are (a, s) in this order.
    split = flipped.reshape(c_in, c_out, 2, 2, 2, 2)  # c_in c_out a s b t
    return np.ascontiguousarray(split.transpose(2, 4, 0, 3, 5, 1).reshape(2, 2, c_in, 4 * c_out))


def _folded(
    kernel: Kernel, norm: Mapping[str, np.ndarray]
) -> tuple[Kernel, Float[np.ndarray, " c_out"]]:
    """The kernel and the bias that do what a transposed convolution and its batch norm do."""
    scale = norm["weight"] / np.sqrt(norm["running_var"] + np.float32(EPSILON))
    return kernel * scale[:, None, None], norm["bias"] - norm["running_mean"] * scale


def _state(
    tensors: Mapping[str, np.ndarray], path: Path
) -> tuple[list[Kernel], list[dict[str, np.ndarray]]]:
    """The transposed convolutions' kernels and the batch norms of a file, checked."""
    # A checkpoint's other networks, such as the discriminator, have no batch norm there.
    telling = f"{NORMS[0]}.running_mean"
    prefixes = [name.removesuffix(telling) for name in tensors if name.endswith(telling)]
    if len(prefixes) != 1:
        found = f"{len(prefixes)} of them" if prefixes else f"tensors such as {_some(tensors)}"
        raise MismatchError(
            f"{path} doesn't hold one DCGAN generator of 64x64 images, but {found}. Give a file of "
            f"the tensors {CONVOLUTIONS[0]}.weight to {CONVOLUTIONS[-1]}.weight."
        )
    own = {
        name.removeprefix(prefixes[0]): array
        for name, array in tensors.items()
        if name.startswith(prefixes[0]) and not name.endswith("num_batches_tracked")
    }
    wanted = {f"{name}.weight": 4 for name in CONVOLUTIONS}
    wanted |= {f"{name}.{key}": 1 for name in NORMS for key in _NORM_KEYS}
    faults = [f"it lacks {listed(missing)}"] if (missing := sorted(wanted - own.keys())) else []
    if left := sorted(map(shown, own.keys() - wanted)):
        faults.append(f"it holds {listed(left)} besides")
    if faults:
        raise MismatchError(
            f"{path} isn't a DCGAN generator of 64x64 images as PyTorch's tutorial has it: "
            f"{'; '.join(faults)}."
        )
    arrays = {name: _numbers(array, name, path) for name, array in own.items()}
    _check_shapes(arrays, path)
    kernels = [arrays[f"{name}.weight"] for name in CONVOLUTIONS]
    return kernels, [{key: arrays[f"{name}.{key}"] for key in _NORM_KEYS} for name in NORMS]


def _check_shapes(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Refuses arrays that aren't a chain of 4x4 kernels with norms of their channels."""
    channels = [arrays[f"{name}.weight"].shape[:1] for name in CONVOLUTIONS]
    last = arrays[f"{CONVOLUTIONS[-1]}.weight"].shape[1:2]
    expected = {
        f"{name}.weight": (*read, *given, 4, 4)
        for name, read, given in zip(CONVOLUTIONS, channels, [*channels[1:], last], strict=True)
    }
    for name, given in zip(NORMS, channels[1:], strict=True):
        expected |= {f"{name}.{key}": given for key in _NORM_KEYS}
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise MismatchError(
                f"{path}: {name} has the shape {arrays[name].shape}, but the layers around it need "
                f"{shape}."
            )
    if last not in ((1,), (3,)):
        raise MismatchError(f"{path} makes images of {last[0]} channels. Only 1 and 3 are shown.")
    if any((arrays[f"{name}.running_var"] < 0).any() for name in NORMS):
        raise FileError(f"{path} has a batch norm with a negative variance.", path=path)


def _numbers(array: np.ndarray, name: str, path: Path) -> np.ndarray:
    """The array as float32; refused unless it holds finite real numbers."""
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        raise FileError(f"{path}: {shown(name)} must hold finite real numbers.", path=path)
    return array.astype(np.float32, copy=False)


def _some(tensors: Mapping[str, np.ndarray]) -> str:
    return listed(map(shown, tensors), few=3)
