import numpy as np
import pytest

from ppl_cnn.errors import ArgumentError
from ppl_cnn.models.networks.catalogue import VGG16, VGG16_CAFFE
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.trained.pixels import PIXELS, parse_pixels


def seen(preprocessing, pixel):
    """What the first layer sees of an RGB pixel."""
    ordered = np.array(pixel)[:: -1 if preprocessing.order == "BGR" else 1]
    return (ordered - preprocessing.mean) * preprocessing.scale


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torchvision", (np.array([10, 100, 255]) / 255 - [0.485, 0.456, 0.406])
         / [0.229, 0.224, 0.225]),
        ("caffe", [255 - 104.00699, 100 - 116.66877, 10 - 122.67892]),
        ("keras-tf", np.array([10, 100, 255]) / 127.5 - 1),
        ("inception", (np.array([10, 100, 255]) / 255 - 0.5) / 0.5),
        ("raw", [10, 100, 255]),
    ],
)  # fmt: skip
def test_names_are_the_usual_formulas(name, expected):
    np.testing.assert_allclose(seen(parse_pixels(name), (10, 100, 255)), expected, rtol=1e-6)


def test_names_agree_with_the_declared_networks():
    assert parse_pixels("torchvision").mean == VGG16.preprocessing.mean
    np.testing.assert_allclose(parse_pixels("caffe").mean, VGG16_CAFFE.preprocessing.mean, atol=1.1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mean=104,117,123 scale=1 order=BGR", ((104.0, 117.0, 123.0), (1.0,) * 3, "BGR")),
        ("order=RGB  scale=1/255 mean=0", ((0.0,) * 3, (1 / 255,) * 3, "RGB")),
        ("mean = 1, 2, 3 scale=1 / 2,.5,5e-1 order=RGB", ((1.0, 2.0, 3.0), (0.5,) * 3, "RGB")),
        ("mean=-1.5 scale=-1/2 order=RGB", ((-1.5,) * 3, (-0.5,) * 3, "RGB")),
    ],
)
def test_fields_give_numbers_for_each_channel(text, expected):
    assert parse_pixels(text) == Preprocessing(*expected)


def test_grey_images():
    assert parse_pixels("raw", channels=1) == Preprocessing((0.0,), (1.0,), "grey")
    assert parse_pixels("keras-tf", channels=1) == Preprocessing((127.5,), (1 / 127.5,), "grey")
    spelled = parse_pixels("mean=72 scale=1/64 order=grey", channels=1)
    assert spelled == Preprocessing((72.0,), (1 / 64,), "grey")


@pytest.mark.parametrize(
    ("text", "channels", "fact"),
    [
        ("", 3, "isn't known"),
        ("pytorch", 3, "pixels=pytorch"),
        ("raw raw", 3, "isn't known"),
        ("mean=1 mean=2 scale=1 order=RGB", 3, "isn't known"),
        ("mean=1 scale=1", 3, "order"),
        ("mean=1 std=1 order=RGB", 3, "'std'"),
        ("mean=1 scale=1 order=rgb", 3, "'rgb'"),
        ("mean=1,2 scale=1 order=RGB", 3, "2 numbers for 3 channels"),
        ("mean=x scale=1 order=RGB", 3, "'x'"),
        ("mean=1,,2 scale=1 order=RGB", 3, "''"),
        ("mean=1 scale=1/0 order=RGB", 3, "'1/0'"),
        ("mean=1e999 scale=1 order=RGB", 3, "'1e999'"),
        ("mean=1 scale=0 order=RGB", 3, "scale of 0"),
        ("mean=0.485,0.456,0.406 scale=1/255 order=RGB", 3, "by 255"),
        ("torchvision", 1, "3 channels"),
        ("mean=1 scale=1 order=grey", 3, "1 channels"),
    ],
)
def test_other_texts_are_refused_with_what_there_is(text, channels, fact, refused):
    with refused(fact, *PIXELS, "mean=M,M,M", kind=ArgumentError, argument="pixels"):
        parse_pixels(text, channels=channels)
