"""Readers of NumPy's `.npy` and `.npz`, and of Hugging Face's `.safetensors`."""

import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from ppl_cnn.models.formats.archives import Archive
from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.numpy_pickles import arrays_of

_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?(?:b1|[iu][1248]|f[248]|O|[USV]\d{1,9}))', "
    rb"'fortran_order': (True|False), 'shape': \(([\dL, ]{0,200})\),? ?\}\s*"
)
"""The header as numpy.lib.format writes it; it is matched, so that nothing is evaluated."""
_TENSORFLOW = re.compile(r"(.+)(?:_([Wb])|[./](weights|biases|kernel|bias))(?::0)?", re.DOTALL)
"""Names of a layer's arrays in TensorFlow's layout, which is that of ppl_cnn."""


def with_our_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays under ppl_cnn's names where they have TensorFlow's: conv1_W becomes conv1.kernel.

    Raises:
        ContentError: two arrays get one name.
    """
    found: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        own = name
        if match := _TENSORFLOW.fullmatch(name):
            own = f"{match[1]}.{'bias' if (match[2] or match[3])[0] == 'b' else 'kernel'}"
        if own in found:
            raise ContentError(f"contains two tensors named {shown(own)}.")
        found[own] = array
    return found


def read_npz(archive: Archive) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` archive by name; those of text are left out, and dicts are opened.

    Raises:
        ContentError: a member is damaged, or not an array.
    """
    tensors: dict[str, np.ndarray] = {}
    for member in archive.entries:
        name = member.removesuffix(".npy")
        if name == member:
            continue
        array = _npy(member, archive.read(member))
        if isinstance(array, np.ndarray):
            tensors[name] = array
        else:
            tensors |= {f"{name}.{key}": inner for key, inner in array.items()}
    return with_our_names(tensors)


def read_npy(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a dict that `numpy.save` saved, as of vgg16.npy and caffe-tensorflow.

    Raises:
        ContentError: the content is damaged, or holds no dict of arrays.
    """
    array = _npy("array", content)
    if isinstance(array, np.ndarray) or not array:
        raise ContentError(
            "holds one NumPy array, not arrays by names. Save them by names with numpy.savez."
        )
    return with_our_names(array)


def _npy(name: str, member: bytes | memoryview) -> np.ndarray | dict[str, np.ndarray]:
    """The array of a member in the `.npy` format, or the arrays by names of one of objects."""
    head = bytes(member[:12])
    if len(head) < 12 or head[:6] != b"\x93NUMPY":
        raise ContentError(f"has the member {shown(name)}, which is not a NumPy array.")
    # Version 1 gives the header's length in 2 bytes, the later ones in 4.
    start = 10 if head[6] == 1 else 12
    length = struct.unpack("<H", head[8:10])[0] if start == 10 else struct.unpack("<I", head[8:])[0]
    header = _HEADER.fullmatch(member[start : start + length])
    if not header:
        raise ContentError(f"has the member {shown(name)}, which is not an array of numbers.")
    data = member[start + length :]
    if header[1].endswith(b"O"):
        return arrays_of(data)
    if re.search(rb"[USV]", header[1]):
        return {}
    return _numbers(name, data, header)


def _numbers(name: str, data: bytes | memoryview, header: re.Match[bytes]) -> np.ndarray:
    """The array of numbers that a member's header tells of."""
    dtype = np.dtype(header[1].decode())
    shape = [int(size) for size in re.findall(rb"\d{1,18}", header[3])]
    if math.prod(shape) * dtype.itemsize != len(data) or not data or len(shape) > 8:
        raise ContentError(
            f"has the member {shown(name)}, whose {len(data):,} bytes of numbers do not fit its "
            f"shape {tuple(shape)}."
        )
    array = np.frombuffer(data, dtype)
    return array.reshape(shape, order="F" if header[2] == b"True" else "C")


_SAFETENSORS = {
    "BOOL": np.dtype("?"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
}


_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize


def read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """The tensors in the content of a `.safetensors` file by name.

    The package's `deserialize` checks offsets and sizes before it allocates; its NumPy
    interface lacks bfloat16. Source of the format: github.com/huggingface/safetensors.

    Raises:
        ContentError: the content is damaged, or a tensor is empty or of an unsupported type.
    """
    try:
        records = _deserialize(content)
    except safetensors.SafetensorError:
        # The error's own words may repeat what the file says.
        raise ContentError("is not an intact safetensors file.") from None
    tensors = {}
    for name, record in records:
        if record["dtype"] not in _SAFETENSORS:
            raise ContentError(
                f"has the tensor {shown(name)} of the unsupported type {record['dtype']}. Load it "
                "with PyTorch, and save what tensor.float() gives."
            )
        if not record["data"] or len(record["shape"]) > 8:
            raise ContentError(
                f"has the tensor {shown(name)}, which is empty or has more than 8 axes."
            )
        flat = np.frombuffer(record["data"], _SAFETENSORS[record["dtype"]])
        tensors[name] = flat.reshape(record["shape"])
    return tensors
