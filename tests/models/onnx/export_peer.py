"""Exports networks to ONNX and runs them, where PyTorch and onnxruntime are.

python export_peer.py NAME EXPORTER FOLDER [SOURCE WEIGHTS]

NAME is a network of torchvision, with random weights, or an efficientnet-lite of the package
efficientnet-lite-pytorch in the folder SOURCE with the file WEIGHTS. EXPORTER is dynamo or script.
Writes net.onnx, responses.npz (the image x, and what each node makes), modules.txt (the names of
convolutions and dense layers), and for a network of torchvision gradient.npz: the gradient of its
fifth score for x, in float64.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
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


def run(path: Path, side: int) -> dict[str, np.ndarray]:
    """The image, and each node's first result."""
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in model.graph.node)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    x = np.random.default_rng(0).standard_normal((1, 3, side, side), np.float32)
    found = session.run(names, {session.get_inputs()[0].name: x})
    return {"x": x, **dict(zip(names, found, strict=True))}


def gradient(model: nn.Module, x: np.ndarray) -> np.ndarray:
    """The gradient of score 5 in float64, of the weights that an exporter writes.

    Both exporters fold normalisations into convolutions in float32, as `fuse` does. In a ResNet-50
    of random weights, this rounding alone moves the gradient by 8e-3.
    """
    image = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    fuse(model).double()(image)[0, 5].backward()
    assert image.grad is not None
    return image.grad.numpy()


def main(name: str, exporter: str, folder: Path, source: str = "", weights: str = "") -> None:
    model, side = made(name, source, weights)
    exported(model, exporter, side, folder / "net.onnx")
    found = run(folder / "net.onnx", side)
    np.savez(folder / "responses.npz", **{key.replace("/", "|"): found[key] for key in found})
    if not source:
        np.savez(folder / "gradient.npz", gradient(model, found["x"]))
    kinds = (nn.Conv2d, nn.Linear)
    modules = [path for path, module in model.named_modules() if isinstance(module, kinds)]
    (folder / "modules.txt").write_text("\n".join(modules))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
