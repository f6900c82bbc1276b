"""AlexNet's training step in PyTorch, which training_step.py runs.

    PYTHON benchmarks/training/torch_step.py BATCH

Runs where PyTorch is and this package is not. For each line it reads it takes a step on a batch of
random images and prints its seconds. The layers and the update are those of `alexnet`: two towers,
normalization before pooling, dropout; momentum and weight decay.
"""

import os
import sys
import time

import torch
from torch import nn


def alexnet() -> nn.Module:
    normalization = {"alpha": 1e-4, "beta": 0.75, "k": 1.0}
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4),
        nn.ReLU(),
        nn.LocalResponseNorm(5, **normalization),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, **normalization),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(9216, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 1000),
    )


def main(batch: int) -> None:
    affinity = getattr(os, "sched_getaffinity", None)  # on Linux alone
    torch.set_num_threads(len(affinity(0)) if affinity else os.cpu_count() or 1)
    torch.manual_seed(0)
    model = alexnet().train()
    rule = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = torch.randint(0, 256, (batch, 3, 227, 227), dtype=torch.uint8)
    labels = torch.randint(0, 1000, (batch,))
    mean = torch.tensor([104.00699, 116.66877, 122.67892])[None, :, None, None]
    for _ in sys.stdin:
        began = time.perf_counter()
        rule.zero_grad()
        loss = nn.functional.cross_entropy(model(images.float() - mean), labels)
        loss.backward()
        rule.step()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
