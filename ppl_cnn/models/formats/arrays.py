"""NumPy's `.npz` and Hugging Face's `.safetensors`."""

import math
import re
import struct

import ml_dtypes
import numpy as np
import safetensors

from ppl_cnn.errors import InputError
from ppl_cnn.models.formats.archives import Archive
from ppl_cnn.models.formats.names import shown

_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?(?:b1|[iu][1248]|f[248]))', 'fortran_order': (True|False), "
    rb"'shape': \(([\dL, ]{0,200})\),? ?\}\s*"
)
"""As numpy.lib.format writes it; matched, so that nothing is evaluated."""


def read_npz(archive: Archive) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` archive, by names."""
    return {
        name.removesuffix(".npy"): _npy(name, archive.read(name))
        for name in archive.entries
        if name.endswith(".npy")
    }


def _npy(name: str, member: bytes | memoryview) -> np.ndarray:
    head = bytes(member[:12])
    if len(head) < 12 or head[:6] != b"\x93NUMPY":
        raise InputError(f"its member {shown(name)} is no array.")
    # Version 1 gives the header's length in 2 bytes, the later ones in 4.
    start = 10 if head[6] == 1 else 12
    length = struct.unpack("<H", head[8:10])[0] if start == 10 else struct.unpack("<I", head[8:])[0]
    header = _HEADER.fullmatch(member[start : start + length])
    if not header:
        raise InputError(f"its member {shown(name)} is no array of numbers.")
    dtype = np.dtype(header[1].decode())
    shape = [int(size) for size in re.findall(rb"\d{1,18}", header[3])]
    data = member[start + length :]
    if math.prod(shape) * dtype.itemsize != len(data) or not data or len(shape) > 8:
        raise InputError(
            f"its member {shown(name)} has {len(data):,} bytes of numbers, which are not of the "
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


def read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """The tensors of a `.safetensors` file, by names.

    Source of the format: github.com/huggingface/safetensors, whose Rust reader checks offsets
    and sizes before it allocates; its NumPy door lacks bfloat16.
    """
    try:
        records = safetensors.deserialize(content)
    except safetensors.SafetensorError:
        # Not the error's own words: they repeat what the file says.
        raise InputError("it is no intact safetensors file.") from None
    tensors = {}
    for name, record in records:
        if record["dtype"] not in _SAFETENSORS:
            raise InputError(
                f"its tensor {shown(name)} is of the type {record['dtype']}, which is not read."
            )
        if not record["data"] or len(record["shape"]) > 8:
            raise InputError(f"its tensor {shown(name)} is empty or has more than 8 axes.")
        flat = np.frombuffer(record["data"], _SAFETENSORS[record["dtype"]])
        tensors[name] = flat.reshape(record["shape"])
    return tensors
