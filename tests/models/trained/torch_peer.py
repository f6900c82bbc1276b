"""Runs a network of torchvision in PyTorch: `python torch_peer.py NAME SEED FOLDER`.

Runs where PyTorch is and this package is not. Writes state.pth, a state dict of random weights
under torchvision's names, and run.npz, images (n, channel, row, col) and their logits. The layers
are written out from torchvision's documentation.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn


def alexnet() -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
    )
    classifier = nn.Sequential(
        nn.Dropout(),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, 1000),
    )
    return assembled(features, (6, 6), classifier)


def vgg16() -> nn.Module:
    layers: list[nn.Module] = []
    before = 3
    for block in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        for channels in block:
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
            before = channels
        layers.append(nn.MaxPool2d(2, stride=2))
    classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 1000),
    )
    return assembled(nn.Sequential(*layers), (7, 7), classifier)


def assembled(features: nn.Module, size: tuple[int, int], classifier: nn.Module) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            features=features,
            avgpool=nn.AdaptiveAvgPool2d(size),
            flatten=nn.Flatten(),
            classifier=classifier,
        )
    )


def main(name: str, seed: int, folder: Path) -> None:
    torch.manual_seed(seed)
    model = {"alexnet-torchvision": alexnet, "vgg16": vgg16}[name]().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Widths that keep the responses' scale, so that the logits depend on all layers.
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5)
            nn.init.normal_(module.bias, std=0.2)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        logits = model(images)
    torch.save(model.state_dict(), folder / "state.pth")
    np.savez(folder / "run.npz", images=images.numpy(), logits=logits.numpy())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
