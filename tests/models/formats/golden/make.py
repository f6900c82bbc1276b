"""Makes the golden files with PyTorch: `python make.py` in an environment that has it (2.13).

What they hold is known without PyTorch: see `EXPECTED` in ../test_torch_files.py.
"""

from collections import OrderedDict
from pathlib import Path

import torch

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
# Not in the legacy format, which stores the class's source and its path as well.
torch.save(torch.nn.Linear(3, 2), HERE / "module.zip.pth")
