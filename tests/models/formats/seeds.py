"""Well-formed files, which the fuzzer mutates."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from tests.models.onnx_files import content, field, node

GOLDEN = Path(__file__).parent / "golden"
SHARDS = ("a.safetensors", "b.safetensors")
"""The files that the indices name."""


def members(content: bytes) -> dict[str, bytes]:
    """The members of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def seeds(reader: str) -> list[bytes]:
    arrays: dict[str, Any] = {
        "conv.kernel": np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3),
        "conv.bias": np.asfortranarray(np.ones((3, 2), np.float16)),
    }
    if reader == "torch":
        return [path.read_bytes() for path in sorted(GOLDEN.rglob("*.pth"))]
    if reader == "pickle":
        values = [arrays, {"conv1": list(arrays.values())}, {"state_dict": arrays, "epoch": 3}]
        values += [{"state": arrays, "names": {"a", "b"}, "text": np.array(["a"]), "x": Path("a")}]
        values += [{"a": np.array([arrays, None], object), "b": np.array(arrays, object)}]
        return [pickle.dumps(value, protocol) for value in values for protocol in range(2, 6)]
    if reader == "npy":
        saved = []
        for array in (np.array(arrays, object), np.array([1, "a"], object), arrays["conv.bias"]):
            file = io.BytesIO()
            np.save(file, array, allow_pickle=True)
            saved.append(file.getvalue())
        return saved
    if reader == "foreign":
        data = np.ones(12, np.float32).tobytes()
        sizes = b"".join(map(field, (1, 2, 3, 4), (1, 1, 3, 4)))
        return [
            *(b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html><html>"),
            *(b"\x89HDF\r\n\x1a\n\0", b"\x1f\x8b\x08\0", b'name: "LeNet"\n', b'{"a": [1]}'),
            *(field(1, 9) + field(2, b"net") + field(3, data), sizes + field(5, data)),
        ]
    if reader == "index":
        return [json.dumps(each).encode() for each in indices()]
    if reader in ("onnx", "graph"):
        return graphs()
    if reader == "npz":
        files = [io.BytesIO(), io.BytesIO()]
        np.savez(files[0], **arrays)
        np.savez_compressed(files[1], **arrays)
        return [file.getvalue() for file in files]
    if reader == "safetensors":
        return [safetensors.numpy.save(arrays)]
    numbers = arrays["conv.kernel"].tobytes()
    packed = field(7, field(1, b"\3\4")) + field(5, numbers)
    legacy = b"".join(map(field, (1, 2, 3, 4), (1, 1, 4, 3))) + field(5, numbers)
    alone = b"".join(b"\x2d" + numbers[i : i + 4] for i in range(0, 48, 4))
    double = field(7, field(1, 6)) + field(8, numbers)
    layer = field(1, b"conv1") + field(2, b"Convolution") + field(7, packed) + field(7, double)
    old = field(4, b"fc6") + field(5, 14) + field(6, legacy) + field(6, field(7, b"\10\14") + alone)
    oldest = field(1, b"fc6") + field(2, b"conv") + field(11, 1) + field(50, legacy)
    pooling = field(1, b"pool1") + field(2, b"Pooling") + field(121, field(1, 1))
    return [
        field(1, b"net") + field(100, pooling) + field(100, layer),
        field(1, b"net") + field(2, old),
        field(1, b"net") + field(2, field(1, oldest) + field(3, b"fc6")),
    ]


def indices() -> list[dict[str, Any]]:
    """The indices of sharded files."""
    places = dict(zip(("conv.kernel", "conv.bias", "fc.weight"), (*SHARDS, SHARDS[0]), strict=True))
    return [
        {"metadata": {"total_size": 96}, "weight_map": places},
        {"weight_map": {"conv.kernel": SHARDS[1]}},
    ]


def graphs() -> list[bytes]:
    """ONNX files of networks of every kind of layer, with what exporters write around them."""
    draw = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return draw.normal(size=shape).astype(np.float32)

    def integers(*numbers: int) -> np.ndarray:
        return np.asarray(numbers, np.int64)

    convolutions = [
        node("Conv", "x c.weight", "c", "/c/Conv", pads=(1, 0, 0, 1), strides=(2, 2)),
        node("BatchNormalization", "c g g g v", "n", "/bn/BatchNormalization"),
        node("Relu", "n", "r", "/relu/Relu"),
        node("Conv", "r d.weight", "d", "/b/d/Conv", group=4, auto_pad="SAME_UPPER"),
        node("Add", "d r", "a", "/b/Add"),
        node("Sigmoid", "a", "s", scopes=["", "b", "b.act"]),
        node("Mul", "a s", "o", scopes=["", "b", "b.act"]),
        node("MaxPool", "o", "m", kernel_shape=(3, 3), strides=(2, 2), ceil_mode=1),
        node("AveragePool", "o", "p", kernel_shape=(2, 2), strides=(2, 2)),
        node("Concat", "m p", "both", axis=1),
        node("GlobalAveragePool", "both", "q"),
        node("Flatten", "q", "f"),
        node("Gemm", "f fc.weight fc.bias", "z", "/fc/Gemm", transB=1, alpha=0.5),
        node("Softmax", "z", "y", axis=1),
    ]
    weights = {"c.weight": normal(4, 3, 3, 3), "d.weight": normal(4, 1, 3, 3), "g": normal(4)}
    weights |= {"v": normal(4) ** 2, "fc.weight": normal(5, 8), "fc.bias": normal(5)}
    shapes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n"),
        node("Constant", "", "minus", value=integers(-1)),
        node("Concat", "n minus", "sizes", axis=0),
        node("Slice", "x first last axes", "cut"),
        node("Pad", "cut pads", "padded"),
        node("Resize", "padded  scales", "large", mode="nearest"),
        node("Transpose", "large", "turned", perm=(0, 2, 3, 1)),
        node("LayerNormalization", "turned three", "normal", axis=-1),
        node("MatMul", "normal mix", "mixed"),
        node("Transpose", "mixed", "back", perm=(0, 3, 1, 2)),
        node("Split", "back", "left right", axis=1),
        node("Clip", "left", "between", min=-1.0, max=1.0),
        node("PRelu", "right slope", "bent"),
        node("Sub", "between bent", "less"),
        node("ReduceMean", "less", "mean", axes=(2, 3), keepdims=0),
        node("Expand", "ones wide", "many"),
        node("Tile", "many twice", "more"),
        node("Range", "zero wide zero", "range"),
        node("Mul", "mean many", "scaled"),
        node("Reshape", "scaled sizes", "y"),
    ]
    constants = {"zero": integers(0), "first": integers(1), "last": integers(2**63 - 1)}
    constants |= {"axes": integers(2), "pads": integers(0, 0, 1, 0, 0, 0, 0, 1), "three": normal(3)}
    constants |= {"scales": np.float32([1, 1, 2, 2]), "mix": normal(3, 4), "slope": normal(2, 1, 1)}
    constants |= {"ones": normal(1), "wide": integers(2), "twice": integers(2)}
    return [
        content(convolutions, weights),
        content(shapes, constants, image=(None, 3, 4, 6), opset=13),
        content([node("ConvTranspose", "x k", "t"), node("LRN", "t", "y", size=3)],
                {"k": normal(3, 2, 2, 2)}),
    ]  # fmt: skip
