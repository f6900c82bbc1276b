"""PyTorch's modules as networks, in an environment that has torch, onnxscript and jax.

pip install torch onnxscript
python -m pytest tests/models/trained/test_torch_modules.py
"""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

import ppl_cnn
from ppl_cnn.errors import ArgumentError, MismatchError
from ppl_cnn.models.networks.slab import Slab


def test_without_pytorch_a_sentence_says_what_to_install(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "torch", None)
    with refused("PyTorch", "onnxscript", ".onnx", kind=ArgumentError, argument="model"):
        ppl_cnn.from_torch(object(), object(), pixels="raw")


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("onnxscript", reason="onnxscript isn't installed, nor may torch be")
    return pytest.importorskip("torch", reason="torch isn't installed")


@pytest.fixture(scope="module")
def model(torch):
    """A residual network, left in the modes that its user chose."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(6, 6, 3, padding=1, groups=6)
            self.bn = nn.BatchNorm2d(6)

        def forward(self, x):
            return torch.relu(x + self.bn(self.conv(x)))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3, stride=2)
            self.blocks = nn.Sequential(Block(), Block())
            self.dropout = nn.Dropout(0.5)
            self.fc = nn.Linear(6, 4)

        def forward(self, x):
            return self.fc(self.dropout(self.blocks(self.stem(x)).mean((2, 3))))

    torch.manual_seed(0)
    made = Net()
    with torch.no_grad():
        for block in made.blocks:
            block.bn.running_mean.normal_()
            block.bn.running_var.uniform_(0.5, 2.0)
            block.bn.weight.uniform_(0.5, 1.5)
    made.train()
    made.blocks[0].eval()
    return made


@pytest.fixture(scope="module")
def net(model, torch):
    pixels = "mean=120 scale=1/60 order=RGB"
    return ppl_cnn.from_torch(model, torch.zeros(2, 3, 17, 13), pixels=pixels)


def test_scores_are_those_of_the_module_in_inference_mode(net, model, torch):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 17, 13, 3), np.uint8)
    modes = [part.training for part in model.modules()]
    seen = torch.from_numpy((pixels.transpose(0, 3, 1, 2).astype(np.float32) - 120) / 60)
    model.eval()
    with torch.no_grad():
        expected = model(seen).numpy()
    for part, mode in zip(model.modules(), modes, strict=True):
        part.training = mode
    np.testing.assert_allclose(net.logits(pixels), expected, rtol=0, atol=1e-5)


def test_the_module_keeps_its_modes_and_weights(model, torch):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    assert {*modes} == {True, False}
    ppl_cnn.from_torch(model, torch.zeros(1, 3, 17, 13), pixels="raw")
    assert [part.training for part in model.modules()] == modes
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_layers_have_the_modules_paths_and_slabs(net):
    assert net.name == "Net"
    assert {"stem", "blocks.0.conv", "blocks.1.conv", "fc"} <= {
        layer.name for layer in net.unit_layers()
    }
    unit = net.unit("blocks.1.conv:2@3,1")
    assert unit.shape == (11, 9, 3)
    x = jnp.asarray(np.random.default_rng(1).normal(0, 50, (17, 13, 3)), jnp.float32)
    rows, cols = unit.rows, unit.cols
    own = unit.score(unit.params, x[rows.start : rows.stop, cols.start : cols.stop])
    whole = Slab.whole(net.declaration).responses(net.arrays(), x[None] / 60)["blocks.1.conv"]
    np.testing.assert_allclose(own, whole[0, 3, 1, 2], rtol=1e-5)


def test_a_module_that_another_runs_has_its_own_paths(model, torch):
    net = ppl_cnn.from_torch(torch.nn.DataParallel(model), torch.zeros(1, 3, 17, 13), pixels="raw")
    assert net.name == "Net"
    assert "blocks.0.conv" in {layer.name for layer in net.unit_layers()}


def test_what_is_no_image_or_module_is_refused(model, torch, refused):
    image = torch.zeros(1, 3, 17, 13)
    with refused("torch.nn.Module", "function", kind=ArgumentError, argument="model"):
        ppl_cnn.from_torch(lambda x: x, image, pixels="raw")
    with refused("(1, 17, 13, 3)", kind=ArgumentError, argument="example"):
        ppl_cnn.from_torch(model, torch.zeros(1, 17, 13, 3), pixels="raw")
    with refused("ndarray", kind=ArgumentError, argument="example"):
        ppl_cnn.from_torch(model, np.zeros(3), pixels="raw")
    with refused("Net", "torchvision", kind=ArgumentError, argument="pixels"):
        ppl_cnn.from_torch(model, image)
    with refused("4 scores", kind=MismatchError):
        ppl_cnn.from_torch(model, image, pixels="raw", classes="imagenet")


def test_a_module_that_cannot_be_exported_is_refused_and_keeps_its_modes(torch, refused):
    class Odd(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("no such branch")

    odd = Odd().train()
    with refused("Odd", "ONNX", kind=ArgumentError, argument="model"):
        ppl_cnn.from_torch(odd, torch.zeros(1, 3, 8, 8), pixels="raw")
    assert odd.training
