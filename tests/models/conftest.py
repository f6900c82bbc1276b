"""Writers of the formats in which networks are published, independent of the readers."""

import io
import pickletools
import struct
import zipfile
from types import MappingProxyType

import numpy as np
import pytest

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

    def varint(rest):
        head = bytearray()
        while rest > 0x7F:
            head.append(rest & 0x7F | 0x80)
            rest >>= 7
        return bytes(head) + bytes([rest])

    def field(number, value):
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        return varint(number << 3 | 2) + varint(len(value)) + value

    return field


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
def onnx_tensor(caffe_field):
    """A function of a name and an array to a TensorProto."""
    kinds = {"float32": 1, "int64": 7, "float64": 11, "float16": 10, "int32": 6, "bool": 9}

    def tensor(name, array):
        array = np.asarray(array)
        sizes = b"".join(caffe_field(1, size) for size in array.shape)
        kind = caffe_field(2, kinds[array.dtype.name])
        return sizes + kind + caffe_field(8, name.encode()) + caffe_field(9, array.tobytes())

    return tensor


@pytest.fixture
def onnx_node(caffe_field, onnx_tensor):
    """A function of an operator, the names of its inputs and outputs, and attributes to a node."""

    def attribute(name, value):
        start = caffe_field(1, name.encode())
        if isinstance(value, str):
            return start + caffe_field(4, value.encode()) + caffe_field(20, 3)
        if isinstance(value, int):
            return start + caffe_field(3, value % 2**64) + caffe_field(20, 2)
        if isinstance(value, float):
            return start + b"\x15" + struct.pack("<f", value) + caffe_field(20, 1)
        if isinstance(value, np.ndarray):
            return start + caffe_field(5, onnx_tensor("", value)) + caffe_field(20, 4)
        if all(isinstance(each, int) for each in value):
            integers = b"".join(caffe_field(8, each % 2**64) for each in value)
            return start + integers + caffe_field(20, 7)
        floats = caffe_field(7, struct.pack(f"<{len(value)}f", *value))
        return start + floats + caffe_field(20, 6)

    def node(operator, inputs, outputs, name="", domain="", scopes=None, **attributes):
        words = [(1, each) for each in inputs.split(" ")] if inputs else []
        words += [(2, each) for each in outputs.split()]
        words += [(3, name), (4, operator), (7, domain)]
        content = b"".join(caffe_field(number, word.encode()) for number, word in words)
        for key, value in attributes.items():
            content += caffe_field(5, attribute(key, value))
        if scopes is not None:
            key = caffe_field(1, b"pkg.torch.onnx.name_scopes")
            content += caffe_field(9, key + caffe_field(2, repr(scopes).encode()))
        return content

    return node


@pytest.fixture
def onnx_content(caffe_field, onnx_tensor):
    """A function of nodes, constants and the image's shape to the content of an ONNX file."""

    def value(name, sizes):
        dims = b"".join(
            caffe_field(1, caffe_field(2, b"n") if size is None else caffe_field(1, size))
            for size in sizes
        )
        kind = caffe_field(1, caffe_field(1, 1) + caffe_field(2, dims))
        return caffe_field(1, name.encode()) + caffe_field(2, kind)

    def content(nodes, constants=MappingProxyType({}), image=(1, 3, 8, 8), opset=17, **others):
        graph = b"".join(caffe_field(1, node) for node in nodes)
        graph += b"".join(
            caffe_field(5, onnx_tensor(name, array)) for name, array in constants.items()
        )
        inputs = {"x": image, **others.get("inputs", {})}
        graph += b"".join(caffe_field(11, value(*each)) for each in inputs.items())
        graph += caffe_field(12, value(others.get("output", "y"), (1,)))
        return caffe_field(1, 8) + caffe_field(7, graph) + caffe_field(8, caffe_field(2, opset))

    return content
