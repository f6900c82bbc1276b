"""What a network's first layer sees of a picture, as text: the values of `pixels`."""

import math
import re
from dataclasses import replace

from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.networks.catalogue import ALEXNET_TORCHVISION, CAFFENET
from ppl_cnn.models.networks.declaration import Preprocessing

_HALF = Preprocessing(mean=(127.5,) * 3, scale=(1 / 127.5,) * 3, order="RGB")

PIXELS = {
    "torchvision": replace(ALEXNET_TORCHVISION.preprocessing, short_side=None),
    "caffe": replace(CAFFENET.preprocessing, short_side=None),
    "keras-tf": _HALF,
    "inception": _HALF,
    "raw": Preprocessing(mean=(0.0,) * 3, scale=(1.0,) * 3, order="RGB"),
}
"""The usual preprocessings by name.

torchvision, and most PyTorch networks of ImageNet: RGB, standardised by ImageNet's mean and
deviation. caffe, and Keras' mode "caffe": BGR minus the mean, unscaled. keras-tf (Keras' mode "tf")
and inception (timm's name of it): RGB from -1 to 1. raw: RGB from 0 to 255.
"""

FORMS = f"{', '.join(PIXELS)}, or 'mean=M,M,M scale=S,S,S order=RGB'"
"""What the text may be, for help and errors."""

_FIELDS = ("mean", "scale", "order")
_CHANNELS = {"RGB": 3, "BGR": 3, "grey": 1}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RATIO = re.compile(rf"({_NUMBER})(?:/({_NUMBER}))?")


def parse_pixels(text: str, *, channels: int = 3) -> Preprocessing:
    """The preprocessing that a text names, (pixels - mean) * scale of pixels from 0 to 255.

    Args:
        text: a name of `PIXELS`, or three fields, "mean=M scale=S order=RGB". M and S are a number
            for all channels or one for each, in that order, joined by commas; 1/255 is a number
            too. The order is RGB, BGR or grey.
        channels: the channels of the network's image. For one channel, a name whose channels are
            all alike gives the order grey.

    Raises:
        ArgumentError: the text is none of these, or doesn't fit the channels.

    Examples:
        >>> parse_pixels("mean=104,117,123 scale=1 order=BGR").mean
        (104.0, 117.0, 123.0)
        >>> parse_pixels("raw", channels=1).order
        'grey'
    """
    found = PIXELS[text] if text in PIXELS else _spelled(text)
    alike = len({*zip(found.mean, found.scale, strict=True)}) == 1
    if text in PIXELS and channels == 1 and alike:
        return Preprocessing(found.mean[:1], found.scale[:1], "grey")
    if len(found.mean) != channels:
        raise _fault(text, f"has {len(found.mean)} channels, and the network's image {channels}")
    return found


def _spelled(text: str) -> Preprocessing:
    """The preprocessing of a text with the three fields."""
    words = re.sub(r" *([=,/]) *", r"\1", text).split()
    pairs = [word.partition("=") for word in words]
    fields = {name: value for name, _, value in pairs}
    if not all(equals for _, equals, _ in pairs) or len(fields) != len(pairs) or not fields:
        raise _fault(text, "isn't known")
    if strange := [name for name in fields if name not in _FIELDS]:
        raise _fault(text, f"has the unknown field {strange[0]!r}")
    if missing := [name for name in _FIELDS if name not in fields]:
        raise _fault(text, f"lacks {' and '.join(missing)}")
    order = fields["order"]
    if order not in _CHANNELS:
        raise _fault(text, f"has the unknown order {order!r} (RGB, BGR or grey)")
    mean, scale = (_numbers(text, fields[name], _CHANNELS[order]) for name in ("mean", "scale"))
    if any(0 < value < 1 for value in mean):
        raise _fault(text, "has a mean of pixels from 0 to 1; multiply it by 255")
    if not all(scale):
        raise _fault(text, "has a scale of 0")
    return Preprocessing(mean, scale, order)


def _numbers(text: str, value: str, channels: int) -> tuple[float, ...]:
    """A number for each channel; one number stands for all."""
    numbers = []
    for word in value.split(","):
        ratio = _RATIO.fullmatch(word)
        divisor = float(ratio[2] or 1) if ratio else 0.0
        number = float(ratio[1]) / divisor if ratio and divisor else math.nan
        if not math.isfinite(number):
            raise _fault(text, f"has {word!r}, which is no finite number")
        numbers.append(number)
    if len(numbers) not in (1, channels):
        raise _fault(text, f"has {len(numbers)} numbers for {channels} channels")
    return tuple(numbers) if len(numbers) == channels else tuple(numbers) * channels


def _fault(text: str, fault: str) -> ArgumentError:
    return ArgumentError(f"`pixels={text}` {fault}. Give {FORMS}.", argument="pixels")
