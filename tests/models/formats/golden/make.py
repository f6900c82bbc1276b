"""Makes the golden files with PyTorch: `python make.py` in an environment that has it (2.13).

What they hold is known without PyTorch: see `EXPECTED` in ../test_torch_files.py.
"""

import argparse
import collections
import random
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

HERE = Path(__file__).parent


def numbers(*shape: int) -> torch.Tensor:
    """0, 1/8, 2/8, ...: exact in half and in bfloat16."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float32) / 8).reshape(shape)


shared = numbers(4, 6)
states = {
    "plain": OrderedDict(
        [
            ("conv.weight", numbers(3, 2, 2, 2)),
            ("conv.bias", numbers(3)),
            ("norm.num_batches_tracked", torch.tensor(7)),
            ("mask", torch.tensor([True, False])),
            ("double", numbers(3).double()),
        ]
    ),
    "halves": {"half": numbers(2, 5).half(), "brain": numbers(2, 5).bfloat16()},
    "views": {
        "all": shared,
        "transposed": shared.t(),
        "strided": shared[1::2, 2::3],
        "row": shared[2],
    },
    "parallel": torch.nn.DataParallel(torch.nn.Linear(3, 2)).state_dict(),
    "checkpoint": {
        "epoch": 3,
        "best": 0.5,
        "arguments": ["a", None, (1, 2)],
        "state_dict": {"fc.weight": torch.nn.Parameter(numbers(2, 3)), "fc.bias": numbers(2)},
        "optimizer": {"state": {0: {"momentum": numbers(2, 3)}}, "param_groups": [{"lr": 0.1}]},
    },
}
states["parallel"] = OrderedDict(
    (name, numbers(*tensor.shape)) for name, tensor in states["parallel"].items()
)
states["parallel"]._metadata = torch.nn.Linear(3, 2).state_dict()._metadata
for name, state in states.items():
    torch.save(state, HERE / f"{name}.zip.pth")
    torch.save(state, HERE / f"{name}.legacy.pth", _use_new_zipfile_serialization=False)

# One dense layer, fc, saved in the ways that people save checkpoints.


class Subclass(torch.Tensor):
    pass


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.fc.load_state_dict({"weight": numbers(2, 3) + 0.125, "bias": numbers(2)})
        self.register_buffer("passing", torch.ones(2, 2), persistent=False)


def changed(change) -> dict[str, torch.Tensor]:
    net = Net()
    change(net.fc)
    net.eval()
    net.fc(torch.ones(1, 3))
    # What the layer computes with, for the test to compare.
    return {**net.state_dict(), "expected": net.fc.weight.detach().clone()}


state = OrderedDict(Net().state_dict())
weight, bias = state["fc.weight"].clone(), state["fc.bias"].clone()
bias.tag = "text"
parameter = torch.nn.Parameter(bias.clone())
parameter.number = 3
optimizer = torch.optim.SGD(Net().parameters(), 0.1, momentum=0.9)
checkpoints = {
    "objects": {
        "args": argparse.Namespace(rate=0.1, out=Path("runs")),
        "counter": collections.Counter("abc"),
        "lists": collections.defaultdict(list, {"loss": [0.1]}),
        "frozen": {"conv1", "conv2"},
        "always": frozenset({1}),
        "classes": np.array(["cat", "dog"]),
        "things": np.array([None, "a"]),
        "best": np.float64(0.5),
        "states": [torch.get_rng_state(), np.random.get_state(), random.getstate()],
        "kinds": [torch.float8_e4m3fn, torch.device("cpu"), torch.Size([1, 2]), int, torch.relu],
        "schedule": torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2]).state_dict(),
        "optimizer": optimizer.state_dict(),
        "state_dict": state,
    },
    "deep": {"run": {"best": {"network": state}, "epoch": 3}},
    "modules": {"model": torch.nn.DataParallel(Net()), "epoch": 3},
    "attributes": {"fc.weight": weight.as_subclass(Subclass), "fc.bias": bias},
    "parameters": {"fc.weight": torch.nn.Parameter(weight), "fc.bias": parameter},
    "quantized": {**state, "fc.weight": torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)},
    "sparse": {**state, "fc.weight": weight.to_sparse()},
    "float8": {**state, "fc.weight": weight.to(torch.float8_e4m3fn)},
    "negated": {**state, "fc.weight": torch._neg_view(weight)},
    "average": {"model_ema": OrderedDict((k, v + 1) for k, v in state.items()), "model": state},
    "list": [weight, bias],
    "weight_norm": changed(weight_norm),
    "weight_norm_whole": changed(lambda layer: weight_norm(layer, dim=None)),
    "weight_norm_new": changed(parametrizations.weight_norm),
    "spectral_norm": changed(spectral_norm),
    "spectral_norm_new": changed(parametrizations.spectral_norm),
    "pruned": changed(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
}
(HERE / "checkpoints").mkdir(exist_ok=True)
for name, checkpoint in checkpoints.items():
    torch.save(checkpoint, HERE / "checkpoints" / f"{name}.pth")
torch.save(Net(), HERE / "checkpoints" / "legacy.pth", _use_new_zipfile_serialization=False)

# Not in the legacy format, which stores the class's source and its path as well.
torch.save(torch.nn.Linear(3, 2), HERE / "module.zip.pth")
