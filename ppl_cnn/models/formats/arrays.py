"""Readers of NumPy's `.npz` and Hugging Face's `.safetensors`."""

import math
import re
import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from ppl_cnn.models.formats.archives import Archive
from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown

_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?(?:b1|[iu][1248]|f[248]))', 'fortran_order': (True|False), "
    rb"'shape': \(([\dL, ]{0,200})\),? ?\}\s*"
)
"""The header as numpy.lib.format writes it; it is matched, so that nothing is evaluated."""


def read_npz(archive: Archive) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` archive by name.

    Raises:
        ContentError: a member is damaged, or not an array of numbers.
    """
    return {
        name.removesuffix(".npy"): _npy(name, archive.read(name))
        for name in archive.entries
        if name.endswith(".npy")
    }


def _npy(name: str, member: bytes | memoryview) -> np.ndarray:
    """The array of a member in the `.npy` format."""
    head = bytes(member[:12])
    if len(head) < 12 or head[:6] != b"\x93NUMPY":
        raise ContentError(f"has the member {shown(name)}, which is not a NumPy array.")
    # Version 1 gives the header's length in 2 bytes, the later ones in 4.
    start = 10 if head[6] == 1 else 12
    length = struct.unpack("<H", head[8:10])[0] if start == 10 else struct.unpack("<I", head[8:])[0]
    header = _HEADER.fullmatch(member[start : start + length])
    if not header:
        raise ContentError(f"has the member {shown(name)}, which is not an array of numbers.")
    dtype = np.dtype(header[1].decode())
    shape = [int(size) for size in re.findall(rb"\d{1,18}", header[3])]
    data = member[start + length :]
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
                f"has the tensor {shown(name)} of the unsupported type {record['dtype']}."
            )
        if not record["data"] or len(record["shape"]) > 8:
            raise ContentError(
                f"has the tensor {shown(name)}, which is empty or has more than 8 axes."
            )
        flat = np.frombuffer(record["data"], _SAFETENSORS[record["dtype"]])
        tensors[name] = flat.reshape(record["shape"])
    return tensors
