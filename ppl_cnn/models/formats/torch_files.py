"""Readers of PyTorch's two formats, without PyTorch.

The source of the formats is torch/serialization.py of PyTorch 2.13. A zip file (since 1.6) has a
pickle `data.pkl`, in which the persistent id ("storage", type, key, device, count) stands for the
numbers in the member `data/key`. A legacy file has five pickles one after another: a magic number,
a version, the writer's machine, the object, and the keys of its storages. The storages follow in
the order of the keys, each as its count (int64) and its numbers.
"""

import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import ml_dtypes
import numpy as np

from ppl_cnn.models.formats.archives import Archive
from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown
from ppl_cnn.models.formats.numpy_pickles import NUMPY, Array
from ppl_cnn.models.formats.pickle_machine import Machine, Pairs, Placeholder
from ppl_cnn.models.formats.state_dicts import Unread, named

MAGIC = 0x1950A86A20F9469CFC6C
LEGACY = b"\x8a\x0a" + MAGIC.to_bytes(10, "little")
"""The first bytes of a legacy file after the pickle's version."""

_DTYPES = {
    "torch float32": np.dtype("<f4"),
    "torch float64": np.dtype("<f8"),
    "torch float16": np.dtype("<f2"),
    "torch bfloat16": np.dtype(ml_dtypes.bfloat16),
    "torch bool": np.dtype("?"),
    **{f"torch int{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    "torch complex64": np.dtype("<c8"),
    "torch complex128": np.dtype("<c16"),
    **{f"torch uint{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
}
_STORAGES = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch BoolStorage": np.dtype("?"),
    "torch CharStorage": np.dtype("<i1"),
    "torch ByteStorage": np.dtype("<u1"),
    "torch ShortStorage": np.dtype("<i2"),
    "torch IntStorage": np.dtype("<i4"),
    "torch LongStorage": np.dtype("<i8"),
    "torch.storage UntypedStorage": np.dtype("<u1"),
    "torch QInt8Storage": np.dtype("<i1"),
    "torch QUInt8Storage": np.dtype("<u1"),
    "torch QInt32Storage": np.dtype("<i4"),
    "torch ComplexFloatStorage": np.dtype("<c8"),
    "torch ComplexDoubleStorage": np.dtype("<c16"),
}


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers in the file."""

    key: str
    """The name of the run in the file."""
    dtype: np.dtype
    """The type of the numbers."""
    count: int
    """The number of numbers."""
    start: int = 0
    """The number of numbers of the named run that lie before this part of it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A strided view of a storage; offset and strides are in numbers, not bytes."""

    storage: Storage
    dtype: np.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self, content: bytes | memoryview) -> np.ndarray:
        """The tensor as a view of the content, without a copy.

        Args:
            content: the bytes that the file has for the storage's key.

        Raises:
            ContentError: the tensor reaches beyond the storage, or has more numbers than the
                storage (as `expand` makes it), so that the file's size would not bound its size.
        """
        itemsize = self.storage.dtype.itemsize
        first, room = self.storage.start * itemsize, self.storage.count * itemsize
        if first + room > len(content):
            raise ContentError(
                f"has the storage {shown(self.storage.key)} of {len(content):,} bytes, whose "
                f"tensors need {first + room:,}."
            )
        elements, room = math.prod(self.size), room // self.dtype.itemsize
        reach = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if elements > room or (elements and self.offset + reach >= room):
            raise ContentError(
                f"has a tensor of shape {self.size}, offset {self.offset} and strides "
                f"{self.stride}, which exceeds its storage of {room:,} numbers."
            )
        if not elements:
            return np.zeros(self.size, self.dtype)
        flat = np.frombuffer(content, self.dtype, room, first)[self.offset :]
        strides = [step * self.dtype.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(flat, self.size, strides, writeable=False)


def read_zip(archive: Archive) -> dict[str, np.ndarray]:
    """The tensors of a file in the zip format by name.

    Raises:
        ContentError: the file is damaged, of a big-endian machine, a program, or contains no
            tensors by names.
    """
    pickles = [name for name in archive.entries if f"/{name}".endswith("/data.pkl")]
    root = min(pickles, key=len).removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive.entries:
        raise ContentError(
            "is a TorchScript archive, which is a program. Save the weights alone, with "
            "torch.save(torch.jit.load(file).state_dict(), other_file)."
        )
    order = f"{root}byteorder"
    if order in archive.entries and bytes(archive.read(order)) != b"little":
        raise ContentError("was written by a big-endian machine. Save it again on another machine.")
    value = _load(io.BytesIO(archive.read(f"{root}data.pkl")), {})
    # Cached, as many tensors may share a member whose CRC takes long to check.
    return named(value, _arrays(cache(lambda key: archive.read(f"{root}data/{key}"))))


def read_legacy(content: bytes) -> dict[str, np.ndarray]:
    """The tensors in the content of a file in the legacy format by name.

    Raises:
        ContentError: the content is damaged, or contains no tensors by names.
    """
    file = io.BytesIO(content)
    storages: dict[str, Storage] = {}
    magic, version, _, value, keys = (_load(file, storages) for _ in range(5))
    if magic != MAGIC or version != 1001 or not isinstance(keys, list):
        raise ContentError("is not a legacy PyTorch file of version 1001, the only version.")
    parts: dict[str, memoryview] = {}
    for key in keys:
        if not isinstance(key, str) or key not in storages:
            raise ContentError("contains a storage that no tensor uses.")
        parts[key] = _stored(file, content, storages[key].dtype.itemsize)
    return named(value, _arrays(lambda key: parts.get(key, memoryview(b""))))


def _stored(file: io.BytesIO, content: bytes, itemsize: int) -> memoryview:
    """The bytes of the storage at the file's position, where its count of numbers comes first."""
    head = file.read(8)
    start = file.tell()
    stop = start + (struct.unpack("<q", head)[0] if len(head) == 8 else -1) * itemsize
    if not start <= stop <= len(content):
        raise ContentError(f"is cut short or damaged in the storage at byte {start}.")
    file.seek(stop)
    return memoryview(content)[start:stop]


def _load(file: io.BytesIO, storages: dict[str, Storage]) -> object:
    """The object of the pickle at the file's position; adds its storages to `storages` by key."""

    def persistent(record: object) -> object:
        match record[:6] if isinstance(record, tuple) else record:
            case ("storage", np.dtype() as dtype, str(key), _, int(count), *view) if (
                0 <= count < _LARGEST
            ):
                storages.setdefault(key, Storage(key, dtype, count))
                match view:
                    case [] | [None]:
                        return Storage(key, dtype, count)
                    case [(_, int(start), int(size))] if 0 <= start <= count - size <= count:
                        return Storage(key, dtype, size, start)
            # Legacy files name the class of a module with its source, which is left unread.
            case ("module", Placeholder() as named_class, *_):
                return named_class
        raise ContentError("refers to something other than a storage of numbers.")

    return Machine(_STANDS, persistent).load(file)


def _arrays(content_of: Callable[[str], bytes | memoryview]) -> Callable[..., np.ndarray | None]:
    """A function that gives the array of a tensor record, and None for any other object."""

    def array_of(value: object) -> np.ndarray | None:
        if isinstance(value, Tensor):
            return value.array(content_of(value.storage.key))
        return value.found if isinstance(value, Array) else None

    return array_of


# Stand-ins for PyTorch's functions.

_LARGEST = 2**48
"""A bound on sizes, offsets and strides, so that NumPy's products of them cannot overflow."""


def _tensor(*arguments: object) -> Tensor | Unread:
    match arguments:
        case (Storage() as storage, int(offset), tuple(size), tuple(stride), *rest):
            numbers = [offset, *size[:9], *stride[:9]]
            if (
                all(type(number) is int and 0 <= number < _LARGEST for number in numbers)
                and len(size) == len(stride) <= 8
                and math.prod(max(n, 1) for n in size) < _LARGEST
            ):
                # Records of later versions name the type of the numbers, for a storage of bytes.
                types = [item for item in rest if isinstance(item, np.dtype | Placeholder)]
                match types:
                    case [Placeholder(name), *_]:
                        return Unread(shown(name.replace(" ", ".")), ".float()")
                    case [np.dtype() as dtype, *_]:
                        return Tensor(storage, dtype, offset, size, stride)
                if any(map(_is_lazy, rest)):
                    return Unread("lazily negated or conjugated", ".resolve_neg().resolve_conj()")
                return Tensor(storage, storage.dtype, offset, size, stride)
    raise ContentError("has a damaged tensor record.")


def _is_lazy(metadata: object) -> bool:
    """Whether a record's last field says that the numbers are to be negated or conjugated."""
    entries = metadata.entries[:8] if isinstance(metadata, Pairs) else []
    return any(key in ("neg", "conj") and on is True for key, on in Pairs(entries).pairs())


def _of_a_type(*arguments: object) -> object:
    """A tensor of a subclass or with attributes, as a plain tensor."""
    match arguments:
        case (function, _, tuple(record), *_) if function is _parameter and record:
            return record[0]
        case (function, _, tuple(record), *_) if function is _tensor and len(record) <= 9:
            return _tensor(*record)
        case (function, *_) if isinstance(function, _UnreadTensor):
            return function()
    return Placeholder("torch Tensor")


def _parameter(*arguments: object) -> object:
    return arguments[0] if arguments else None


def _dict(*arguments: object) -> Pairs:
    """An ordered dict, which Python 2 gives its pairs as it makes it, or a dict with a default."""
    match arguments:
        case (list(pairs),):
            return Pairs(pairs)
        case (*_, Pairs() as filled):
            return filled
    return Pairs()


def _set(*arguments: object) -> list[object]:
    return arguments[0] if arguments and isinstance(arguments[0], list) else []


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True, slots=True)
class _UnreadTensor:
    """A function whose tensors are not read, whatever it is called with."""

    tensor: Unread

    def __call__(self, *_: object) -> Unread:
        return self.tensor


_SPARSE, _QUANTIZED = Unread("sparse", ".to_dense()"), Unread("quantized", ".dequantize()")
_WITHOUT_STORAGE = Unread("wrapped, distributed or storage-less", ".detach().cpu().clone()")
_STANDS = {
    **NUMPY,
    **_DTYPES,
    **_STORAGES,
    "collections OrderedDict": _dict,
    "collections defaultdict": _dict,
    "builtins set": _set,
    "__builtin__ set": _set,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "torch._tensor _rebuild_from_type": _of_a_type,
    "torch._tensor _rebuild_from_type_v2": _of_a_type,
    "torch._utils _rebuild_qtensor": _UnreadTensor(_QUANTIZED),
    "torch._utils _rebuild_sparse_tensor": _UnreadTensor(_SPARSE),
    "torch._utils _rebuild_sparse_csr_tensor": _UnreadTensor(_SPARSE),
    "torch._utils _rebuild_nested_tensor": _UnreadTensor(Unread("nested", ".to_padded_tensor(0)")),
    "torch._utils _rebuild_meta_tensor_no_storage": _UnreadTensor(_WITHOUT_STORAGE),
    "torch._utils _rebuild_wrapper_subclass": _UnreadTensor(_WITHOUT_STORAGE),
    "torch Size": _parameter,
    "torch device": _nothing,
}
