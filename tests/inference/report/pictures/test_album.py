import io

import numpy as np
from PIL import Image

from ppl_cnn.inference.report.pictures.album import Tones, spread
from ppl_cnn.inference.report.pictures.encoding import image_tag, joined, jpeg, reduced

NOISE = Tones("grey")


def test_noise_is_stretched_about_the_mean():
    images = np.linspace(-20, 20, 4001).reshape(1, 4001, 1)
    stretched = NOISE.render(images)
    assert stretched.scale == 20
    assert stretched.pixels[0, [0, 1000, 2000, 3000, 4000], 0].tolist() == [0, 64, 128, 191, 255]
    assert NOISE.render(np.zeros((2, 2, 1))).pixels.tolist() == [[[128], [128]]] * 2
    faint = NOISE.render(images / 1e4)
    np.testing.assert_array_equal(faint.pixels, stretched.pixels)
    assert str(faint) == "black to white is ±0.002 grey levels about the mean"
    outlier = np.append(np.ones(999), 1e6).reshape(10, 100, 1)
    assert NOISE.render(outlier).scale == 1


def test_pictures_are_shown_as_they_are():
    mean = np.asarray([104.0, 117.0, 123.0])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3))
    shown = Tones("BGR", tuple(mean)).render((pixels - mean).astype(np.float32))
    np.testing.assert_array_equal(shown.pixels, pixels[..., ::-1])
    assert str(shown) == "pixels are as they are, 0 to 255"
    beyond = np.asarray([-60.0, 0.0, 300.0, np.nan], np.float32).reshape(1, 4, 1)
    assert Tones("grey", (50.0,)).render(beyond).pixels.ravel().tolist() == [0, 50, 255, 0]


def test_draws_are_spread_over_chains_and_time():
    shown = np.arange(3 * 8, dtype=np.float32).reshape(3, 8, 1, 1, 1)  # 8 chain + time
    assert spread(shown, 6).ravel().tolist() == [3, 11, 19, 7, 15, 23]
    assert spread(shown, 5).ravel().tolist() == [11, 19, 7, 15, 23]
    assert spread(shown, 100).ravel().tolist() == shown.swapaxes(0, 1).ravel().tolist()


def test_images_are_joined_on_white_and_reduced():
    grid = np.zeros((2, 3, 4, 5, 1), np.uint8)
    sheet = joined(grid, gap=2)
    assert sheet.shape == (2 * 6 - 2, 3 * 7 - 2, 1)
    assert (sheet == 0).sum() == grid.size
    assert (sheet[4:6] == 255).all()
    assert (sheet[:, 5:7] == 255).all()
    checks = (np.indices((8, 8)).sum(axis=0)[..., None] % 2 * 200).astype(np.uint8)
    assert reduced(checks, 4).tolist() == np.full((4, 4, 1), 100).tolist()
    np.testing.assert_array_equal(reduced(checks, 8), checks)


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


def test_what_lies_beyond_the_scale_is_told():
    images = np.zeros((1, 10, 10, 1), np.float32)
    images[0, :2] = 9.0
    images[0, 9, 9] = np.nan
    noise = Tones().render(images, 5.0)
    assert "20% of the values lie beyond" in str(noise)
    assert "1.0% are not finite" in str(noise)
    picture = Tones("grey", (250.0,)).render(images)
    assert "20% of the values lie beyond" in str(picture)
    assert "beyond" not in str(Tones().render(images[:, :9]))
