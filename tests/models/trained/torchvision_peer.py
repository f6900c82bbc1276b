"""Runs a network of torchvision itself: `python torchvision_peer.py NAME FOLDER`.

Runs where torchvision is and this package is not. Writes state.pth, a state dict of random weights
and averages, and run.npz: an image x (n, channel, row, col), what each module responds to it (under
the module's name), and the gradient of score 5 for it in float64.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(weights=None, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.2)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def responses(model: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Module name -> its response when it is called first."""
    found: dict[str, np.ndarray] = {}
    hooks = []
    for name, module in model.named_modules():

        def keep(_: nn.Module, __: object, response: torch.Tensor, name: str = name) -> None:
            # A copy, since the nonlinearity that follows works in place.
            found.setdefault(name, response.clone().numpy())

        hooks.append(module.register_forward_hook(keep))
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


def main(name: str, folder: Path) -> None:
    model = made(name)
    torch.save(model.state_dict(), folder / "state.pth")
    x = torch.randn(1, 3, 224, 224)
    found = responses(model, x)
    found["scores"] = found.pop("")
    image = x.double().requires_grad_()
    model.double()(image)[0, 5].backward()
    assert image.grad is not None
    np.savez(folder / "run.npz", x=x.numpy(), gradient=image.grad.numpy(), **found)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
