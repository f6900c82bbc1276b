import io

import numpy as np
from PIL import Image

from ppl_cnn.inference.report.pictures import Stretched, image_tag, jpeg


def test_stretching():
    images = np.linspace(-20, 20, 4001).reshape(1, 4001, 1)
    stretched = Stretched.of(images, "grey")
    assert stretched.scale == 20
    assert stretched.pixels[0, [0, 1000, 2000, 3000, 4000], 0].tolist() == [0, 64, 128, 191, 255]
    assert Stretched.of(np.zeros((2, 2, 1)), "grey").pixels.tolist() == [[[128], [128]]] * 2
    faint = Stretched.of(images / 1e4, "grey")
    np.testing.assert_array_equal(faint.pixels, stretched.pixels)
    assert str(faint) == "black to white is ±0.002 grey levels about the mean"
    outlier = np.append(np.ones(999), 1e6).reshape(10, 100, 1)
    assert Stretched.of(outlier, "grey").scale == 1


def test_large_images_stay_small(parsed):
    pixels = np.random.default_rng(0).integers(0, 256, (163, 163, 3), np.uint8)
    page = parsed(image_tag(pixels, "noise", 112))
    (attrs,) = page.all("img")
    assert attrs["src"].startswith("data:image/jpeg")
    assert (attrs["width"], attrs["height"]) == ("163", "163")
    assert len(attrs["src"]) < pixels.size
    assert np.abs(page.image("noise") - pixels.astype(float)).mean() < 10


def test_a_large_sheet_of_noise_becomes_a_jpeg():
    """Pillow fails on such when it is to optimize them."""
    pixels = np.random.default_rng(0).integers(0, 256, (528, 528, 3), np.uint8)
    for quality in (90, 30):
        with Image.open(io.BytesIO(jpeg(pixels, quality))) as image:
            assert image.size == (528, 528)
