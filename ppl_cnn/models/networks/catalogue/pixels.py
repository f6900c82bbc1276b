"""What the networks of the catalogue see of pixels."""

from ppl_cnn.models.networks.declaration import Preprocessing

BVLC = Preprocessing(
    mean=(104.00699, 116.66877, 122.67892), scale=(1.0, 1.0, 1.0), order="BGR", short_side=256
)
"""The preprocessing of Caffe's own ImageNet models: the means of the mean image, ilsvrc_2012_mean.

Caffe squeezed whole photographs to 256x256 before it cropped; here they keep their proportions.
"""


TORCHVISION = Preprocessing(
    mean=(123.675, 116.28, 103.53),
    scale=(1 / 58.395, 1 / 57.12, 1 / 57.375),
    order="RGB",
    short_side=256,
)
"""The preprocessing of torchvision's models, with photographs' short side scaled to 256:
(pixels/255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)."""
