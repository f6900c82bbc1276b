import io
import math

import numpy as np
import pytest
from PIL import Image

from ppl_cnn.data import augmentation
from ppl_cnn.data.augmentation import (
    ASPECT,
    COLOUR_VALUES,
    COLOUR_VECTORS,
    Augmentation,
    CentreView,
    RandomView,
    TenViews,
    Window,
    colour_shift,
    look,
    margin_side,
    placed,
    resized,
    shifted,
)
from ppl_cnn.data.image_files import OpenedImage
from ppl_cnn.errors import ArgumentError


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    )


def opened(content: bytes) -> OpenedImage:
    return OpenedImage(Image.open(io.BytesIO(content)))


def random_view(text: str, shape=(32, 32, 3), seed=0, epoch=0, short_side=None) -> RandomView:
    augmentation = Augmentation.parse(text)
    return RandomView(augmentation, seed=seed, epoch=epoch, shape=shape, short_side=short_side)


def test_texts_of_augmentations():
    assert Augmentation.parse("none") == Augmentation(None, False, False)
    assert Augmentation.parse("crop+flip+colour") == Augmentation("crop", True, True)
    assert Augmentation.parse("flip+resized-crop") == Augmentation("resized-crop", True, False)
    assert Augmentation.parse("colour") == Augmentation(None, False, True)


@pytest.mark.parametrize(
    "text", ["", "crop+", "crops", "crop+resized-crop", "flip+flip", "none+flip"]
)
def test_other_texts_are_refused(text, refused):
    with refused(f"{text!r}", "resized-crop", kind=ArgumentError, argument="augment"):
        Augmentation.parse(text)


def test_windows_by_hand():
    middle = placed((400, 300), (200, 200, 3), 300, across=0.5, down=0.5)
    assert middle == Window(100, 50, 300, 250)
    assert placed((400, 300), (200, 200, 3), 200, across=0, down=1) == Window(0, 0, 300, 300)
    corner = placed((300, 400), (224, 224, 3), 256, across=1, down=0)
    assert corner == pytest.approx((37.5, 0, 300, 262.5))
    # A short side that is too short for the shape is raised to it.
    assert placed((100, 100), (50, 80, 3), 40, across=0, down=0) == Window(0, 0, 100, 62.5)
    assert [margin_side((side, side, 3)) for side in (28, 192, 224)] == [32, 219, 256]


def test_view_of_an_image_of_that_size_is_the_image():
    image = noise(40, 40)
    np.testing.assert_array_equal(CentreView((40, 40, 3))(OpenedImage(image), 0), np.asarray(image))
    np.testing.assert_array_equal(
        CentreView((40, 30, 3), 40)(OpenedImage(noise(60, 40)), 0),
        np.asarray(noise(60, 40))[:, 15:45],
    )


def test_centre_is_the_one_that_networks_cut_of_photographs(photograph):
    from ppl_cnn.models.networks.declaration import Preprocessing
    from ppl_cnn.models.trained.cnn import preprocess

    # Sizes at which the scaled image and the cut are of whole pixels, as the other has them.
    for width, height, short_side in ((300, 200, 80), (128, 256, None), (50, 40, 80)):
        image = opened(photograph(width, height))
        pixels = np.asarray(image.decoded(3))
        plain = Preprocessing((0.0,) * 3, (1.0,) * 3, short_side=short_side)
        peer = np.asarray(preprocess(pixels[None], plain, (64, 64, 3)))[0]
        view = CentreView((64, 64, 3), short_side)(image, 0)
        assert np.abs(view - peer).max() < 2, (width, height, short_side)


def test_ten_views_are_corners_and_centre_and_their_mirror_images():
    image = noise(64, 48)
    pixels = np.asarray(image)
    views = TenViews((32, 32, 3), 48)(OpenedImage(image), 0)
    corners = [pixels[:32, :32], pixels[:32, 32:], pixels[16:, :32], pixels[16:, 32:]]
    for view, expected in zip(views, [*corners, pixels[8:40, 16:48]], strict=False):
        np.testing.assert_array_equal(view, expected)
    np.testing.assert_array_equal(views[5:], views[:5, :, ::-1])
    assert TenViews((32, 32, 3)).shape == (10, 32, 32, 3)


def test_grey_is_luma_and_grey_images_get_three_channels(photograph):
    image = noise(20, 20)
    luma = np.asarray(image, float) @ [0.299, 0.587, 0.114]
    assert np.abs(CentreView((20, 20, 1))(OpenedImage(image), 0)[..., 0] - luma).max() < 1
    grey = CentreView((30, 30, 3))(opened(photograph(50, 30, mode="L")), 0)
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    palette = noise(20, 20).convert("P")
    palette.info["transparency"] = bytes([0, 255])
    assert CentreView((20, 20, 3))(OpenedImage(palette), 0).shape == (20, 20, 3)


def test_random_crops_are_windows_at_uniform_places():
    columns = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (48, 64, 3))
    image = Image.fromarray(np.ascontiguousarray(columns))
    lefts = []
    for position in range(2_000):
        pixels = random_view("crop", short_side=48)(OpenedImage(image), position)
        assert (np.abs(np.diff(pixels[0, :, 0].astype(int)) - 1) <= 1).all()
        lefts.append(float(pixels[0, :, 0].mean()) - 15.5)
    # Uniform over 0..32: mean 16, deviation 9.24, their errors 0.21 and 0.1.
    assert np.mean(lefts) == pytest.approx(16, abs=0.8)
    assert np.std(lefts) == pytest.approx(32 / math.sqrt(12), abs=0.5)
    assert (min(lefts) > -1, max(lefts) < 33) == (True, True)


def test_resized_crops_have_their_areas_and_aspects():
    random = np.random.default_rng(0)
    windows = [resized((400, 300), (224, 224, 3), random) for _ in range(4_000)]
    sizes = np.asarray([(w.right - w.left, w.bottom - w.top) for w in windows])
    assert all(0 <= w.left <= w.right <= 400 and 0 <= w.top <= w.bottom <= 300 for w in windows)
    share = sizes.prod(axis=1) / (400 * 300)
    aspect = sizes[:, 0] / sizes[:, 1]
    assert 0.08 <= share.min() < 0.09
    assert share.max() > 0.9
    assert ASPECT[0] - 1e-9 <= aspect.min() < 0.76
    assert 1.3 < aspect.max() <= ASPECT[1] + 1e-9
    # Small windows always fit: among them area is uniform, the logarithm of aspect symmetric.
    small = share < 0.3
    assert share[small].mean() == pytest.approx(0.19, abs=0.01)
    assert np.log(aspect[small]).mean() == pytest.approx(0, abs=0.02)


def test_an_image_in_which_no_window_fits_gives_its_centre():
    window = resized((1_000, 10), (224, 224, 3), np.random.default_rng(0))
    assert window == Window(495, 0, 505, 10)


def test_half_of_the_views_are_mirrored():
    image = noise(32, 32)
    pixels = np.asarray(image)
    mirrored = 0
    for position in range(1_000):
        view = random_view("flip")(OpenedImage(image), position)
        assert (view == pixels).all() or (view == pixels[:, ::-1]).all()
        mirrored += int((view != pixels).any())
    assert abs(mirrored - 500) < 4 * math.sqrt(250)


def test_views_depend_on_seed_epoch_and_position_alone():
    image = noise(60, 50)
    text = "resized-crop+flip+colour"
    first = random_view(text, seed=1, epoch=2)(OpenedImage(image), 3)
    np.testing.assert_array_equal(random_view(text, seed=1, epoch=2)(OpenedImage(image), 3), first)
    for seed, epoch, position in ((0, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3)):
        assert (
            random_view(text, seed=seed, epoch=epoch)(OpenedImage(image), position) != first
        ).any()


def test_colour_vectors_are_principal_components_of_natural_colours():
    from ppl_cnn.models.references.spectral import Spectral

    vectors = np.asarray(COLOUR_VECTORS)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=2e-3)
    # The same as those of the photographs that the spectral reference was measured on.
    values, columns = np.linalg.eigh(np.asarray(Spectral().covariance))
    for ours, published in zip(columns.T[::-1], vectors, strict=True):
        assert abs(ours @ published) > 0.9
    assert (np.diff(values) > 0).all()
    assert (np.diff(COLOUR_VALUES) < 0).all()


def test_colour_noise_has_its_covariance_and_is_one_shift_of_all_pixels():
    vectors, values = np.asarray(COLOUR_VECTORS), np.asarray(COLOUR_VALUES)
    shifts = np.asarray([colour_shift(each) for each in np.eye(3)])
    expected = vectors.T @ np.diag((0.1 * 255 * values) ** 2) @ vectors
    np.testing.assert_allclose(shifts.T @ shifts, expected, rtol=1e-12)
    image = Image.new("RGB", (32, 32), (128, 100, 90))
    views = np.asarray(
        [
            random_view("colour")(OpenedImage(image), position)[:, :, :].reshape(-1, 3)
            for position in range(3_000)
        ]
    )
    assert (views == views[:, :1]).all()
    measured = np.cov(views[:, 0].T.astype(float))  # rounding adds 1/12
    np.testing.assert_allclose(measured, expected + np.eye(3) / 12, rtol=0.12, atol=0.15)
    pink = OpenedImage(Image.new("RGB", (4, 4), (255, 0, 255)))
    extreme = random_view("colour")(pink, 1)
    assert (extreme[..., 1].max() < 20, extreme[..., 0].min() > 235) == (True, True)


def test_large_photographs_are_decoded_at_a_fraction_to_the_same_picture(photograph, monkeypatch):
    content = photograph(1_200, 900)
    window, shape = Window(100.0, 50.0, 900.0, 850.0), (100, 100, 3)
    drafted = opened(content)
    fast = look(drafted, window, shape)
    assert drafted.size == (300, 225)
    monkeypatch.setattr(augmentation, "DRAFT", 1e9)
    whole = opened(content)
    exact = look(whole, window, shape)
    assert whole.size == (1_200, 900)
    assert np.abs(fast.astype(int) - exact).mean() < 1


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (31.4, -60.5, 0.5), (-300.0, 300.0, 1e-3)])
def test_a_shift_by_tables_is_that_of_each_pixel(shift):
    pixels = np.asarray(noise(20, 30))[:, ::-1]
    peer = np.rint(pixels + np.asarray(shift, np.float32)[None, None]).clip(0, 255)
    np.testing.assert_array_equal(shifted(pixels, np.asarray(shift)), peer.astype(np.uint8))
