"""Writers of the formats in which networks are published, independent of the readers."""

import io
import pickletools
import struct
import zipfile
from types import MappingProxyType

import numpy as np
import pytest

from tests.models import onnx_files

STORAGES = {"<f4": "Float", "<f8": "Double", "<f2": "Half", "<i8": "Long"}


def _text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


def _numbers(*numbers: int) -> bytes:
    return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", number) for number in numbers) + b"t"


@pytest.fixture
def torch_record():
    """A function to the pickle of a tensor record as PyTorch writes it.

    By default the tensor is contiguous and takes all of its storage. A legacy record also has the
    pickle of the storage's view, usually that of None."""

    def record(key, array, offset=0, size=None, stride=None, view=b"", count=None):
        size = array.shape if size is None else size
        steps = [step // array.itemsize for step in array.strides] if stride is None else stride
        name = STORAGES[array.dtype.str]
        head = b"ctorch._utils\n_rebuild_tensor_v2\n((" + _text("storage")
        head += f"ctorch\n{name}Storage\n".encode() + _text(key) + _text("cpu")
        head += _numbers(array.size if count is None else count)[1:-1]
        place = _numbers(offset)[1:-1] + _numbers(*size) + _numbers(*steps)
        return head + view + b"tQ" + place + b"\x89}tR"

    return record


@pytest.fixture
def torch_dict():
    """A function of the pickles of a dict's values to the dict's pickle."""

    def pickled(values):
        items = b"".join(_text(name) + value for name, value in values.items())
        return b"\x80\x02}(" + items + b"u."

    return pickled


@pytest.fixture
def torch_zip(torch_record, torch_dict):
    """A function of arrays, or of arrays and a pickle, to the content of PyTorch's zip format."""

    def content(arrays, pickled=None, compression=zipfile.ZIP_STORED, **others):
        if pickled is None:
            pickled = torch_dict(
                {name: torch_record(str(i), a) for i, (name, a) in enumerate(arrays.items())}
            )
        pickletools.dis(pickled, io.StringIO())
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            archive.writestr("archive/data.pkl", pickled)
            for index, array in enumerate(arrays.values()):
                archive.writestr(f"archive/data/{index}", array.tobytes())
            for name, member in others.items():
                archive.writestr(f"archive/{name}", member)
        return file.getvalue()

    return content


@pytest.fixture
def torch_legacy(torch_record, torch_dict):
    """A function of arrays, and the pickles of their views by name, to PyTorch's legacy format."""

    def content(arrays, views=MappingProxyType({})):
        records = {
            name: torch_record(name, a, view=views.get(name, b"N")) for name, a in arrays.items()
        }
        keys = b"\x80\x02](" + b"".join(map(_text, sorted(arrays))) + b"e."
        storages = b"".join(
            struct.pack("<q", arrays[name].size) + arrays[name].tobytes() for name in sorted(arrays)
        )
        magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
        return magic + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + torch_dict(records) + keys + storages

    return content


@pytest.fixture
def torch_pickle(torch_dict):
    """A function of arrays to the pickle that Python's `pickle.dump` writes of them as tensors.

    The storage of the first array may be read several times.
    """

    def storage(array, times):
        name, memory = STORAGES[array.dtype.str], array.ravel(order="K")
        place = _text("storage") + f"ctorch\n{name}Storage\n".encode() + _text("0") + _text("cpu")
        whole = b"\x80\x02(" + place + _numbers(array.size)[1:-1] + b"NtQ."
        head = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03." + b"\x80\x02}."
        keys = b"\x80\x02](" + _text("0") + b"e."
        inner = head + whole + keys + struct.pack("<q", array.size) + memory.tobytes()
        read = b"ctorch.storage\n_load_from_bytes\n("
        first = read + b"B" + struct.pack("<I", len(inner)) + inner + b"q\x00tR"
        return first + (b"0" + read + b"h\x00tR") * (times - 1)

    def record(array, times):
        steps = [step // array.itemsize for step in array.strides]
        return (
            b"ctorch._utils\n_rebuild_tensor_v2\n("
            + storage(array, times)
            + b"K\x00"
            + _numbers(*array.shape)
            + _numbers(*steps)
            + b"\x89}tR"
        )

    def content(arrays, times=1):
        return torch_dict({name: record(array, times) for name, array in arrays.items()})

    return content


@pytest.fixture
def caffe_field():
    """A function of a number and an integer or bytes to a field of Protocol Buffers."""
    return onnx_files.field


@pytest.fixture
def caffemodel(caffe_field):
    """A function of layers (name -> blobs) to a caffemodel; V1 has the old shapes too."""

    def blob(array, v1):
        data = caffe_field(5, np.asarray(array, "<f4").tobytes())
        if v1:
            four = (1,) * (4 - array.ndim) + array.shape
            return b"".join(map(caffe_field, (1, 2, 3, 4), four)) + data
        sizes = b"".join(caffe_field(1, size)[1:] for size in array.shape)
        return caffe_field(7, caffe_field(1, sizes)) + data

    def content(layers, v1=False):
        number, name_field, blobs_field = (2, 4, 6) if v1 else (100, 1, 7)
        whole = caffe_field(1, b"net")
        for name, blobs in layers.items():
            layer = caffe_field(name_field, name.encode()) + caffe_field(5 if v1 else 10, 1)
            layer += b"".join(caffe_field(blobs_field, blob(array, v1)) for array in blobs)
            whole += caffe_field(number, layer)
        return whole

    return content


@pytest.fixture
def onnx_tensor():
    """A function of a name and an array to a TensorProto."""
    return onnx_files.tensor


@pytest.fixture
def onnx_node():
    """A function of an operator, the names of its inputs and outputs, and attributes to a node."""
    return onnx_files.node


@pytest.fixture
def onnx_content():
    """A function of nodes, constants and the image's shape to the content of an ONNX file."""
    return onnx_files.content
