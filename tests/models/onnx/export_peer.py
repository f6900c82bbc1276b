"""Exports networks to ONNX and runs them, where PyTorch and onnxruntime are.

python export_peer.py NAME EXPORTER FOLDER [SOURCE WEIGHTS PHOTOGRAPH]

NAME is a network of torchvision, with random weights, or an efficientnet-lite of the package
efficientnet-lite-pytorch in the folder SOURCE with the file WEIGHTS. EXPORTER is dynamo or script.
Writes net.onnx, responses.npz (the image x, and what each node makes), modules.txt (the names of
convolutions and dense layers), and for a network of torchvision gradient.npz: the gradient of its
fifth score for x, in float64. x is noise, or the photograph; for that, exact.npz has what each node
makes in float64.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from PIL import Image
from torch import nn
from torch.fx.experimental.optimization import fuse

torch.set_num_threads(2)


def made(name: str, source: str, weights: str) -> tuple[nn.Module, int]:
    """The network, and the side of its images."""
    torch.manual_seed(0)
    if name.startswith("efficientnet-lite"):
        sys.path.insert(0, source)
        from efficientnet_lite_pytorch import EfficientNet

        model = EfficientNet.from_name(name)
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return model.eval(), 240
    import torchvision

    return getattr(torchvision.models, name)(weights=None).eval(), 224


def exported(model: nn.Module, exporter: str, side: int, path: Path) -> None:
    image = torch.randn(1, 3, side, side)
    if exporter == "dynamo":
        torch.onnx.export(model, (image,), path, dynamo=True, external_data=False, verbose=False)
    else:
        torch.onnx.export(model, (image,), path, dynamo=False)


def image_of(photograph: str, side: int) -> np.ndarray:
    """A batch of one image: a photograph from -1 to 1, or noise."""
    if not photograph:
        return np.random.default_rng(0).standard_normal((1, 3, side, side), np.float32)
    with Image.open(photograph) as image:
        pixels = np.asarray(image.convert("RGB").resize((side, side)), np.float32)
    return pixels.transpose(2, 0, 1)[None] / 127.5 - 1


def told(path: Path) -> onnx.ModelProto:
    """The file's graph, with each node's first result as an output."""
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in model.graph.node)
    return model


def run(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """Each node's first result."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(told(path).SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {session.get_inputs()[0].name: x})
    return dict(zip(names, found, strict=True))


class Conv(OpRun):
    """PyTorch's convolution, which has float64; the evaluator's own takes minutes."""

    def _run(self, x, w, b=None, **attributes):
        top, left, bottom, right = attributes["pads"] or (0, 0, 0, 0)
        made = nn.functional.conv2d(
            nn.functional.pad(torch.tensor(x), (left, right, top, bottom)),
            torch.tensor(w),
            None if b is None else torch.tensor(b),
            attributes["strides"] or 1,
            dilation=attributes["dilations"] or 1,
            groups=attributes["group"] or 1,
        )
        return (made.numpy(),)


def exact(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """Each node's first result, in float64 by ONNX's reference evaluator."""
    model = told(path)
    model.graph.ClearField("value_info")
    constants = [a.t for node in model.graph.node for a in node.attribute if a.name == "value"]
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    evaluator = ReferenceEvaluator(model, new_ops=[Conv])
    found = evaluator.run(None, {model.graph.input[0].name: x.astype(np.float64)})
    names = [output.name for output in model.graph.output]
    return {
        name: value
        for name, value in zip(names, found, strict=True)
        if isinstance(value, np.ndarray) and value.dtype == np.float64
    }


def save(path: Path, values: dict[str, np.ndarray]) -> None:
    """Stores arrays under names that may have slashes."""
    np.savez(path, **{name.replace("/", "|"): array for name, array in values.items()})


def gradient(model: nn.Module, x: np.ndarray) -> np.ndarray:
    """The gradient of score 5 in float64, of the weights that an exporter writes.

    Both exporters fold normalisations into convolutions in float32, as `fuse` does. In a ResNet-50
    of random weights, this rounding alone moves the gradient by 8e-3.
    """
    image = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    fuse(model).double()(image)[0, 5].backward()
    assert image.grad is not None
    return image.grad.numpy()


def main(
    name: str,
    exporter: str,
    folder: Path,
    source: str = "",
    weights: str = "",
    photograph: str = "",
) -> None:
    model, side = made(name, source, weights)
    exported(model, exporter, side, folder / "net.onnx")
    x = image_of(photograph, side)
    save(folder / "responses.npz", {"x": x, **run(folder / "net.onnx", x)})
    if photograph:
        save(folder / "exact.npz", exact(folder / "net.onnx", x))
    if not source:
        np.savez(folder / "gradient.npz", gradient(model, x))
    kinds = (nn.Conv2d, nn.Linear)
    modules = [path for path, module in model.named_modules() if isinstance(module, kinds)]
    (folder / "modules.txt").write_text("\n".join(modules))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
