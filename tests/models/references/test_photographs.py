import jax
import numpy as np
import pytest
from PIL import Image

from ppl_cnn import Spectral
from ppl_cnn.errors import FileError
from ppl_cnn.models.networks.declaration import Preprocessing
from ppl_cnn.models.references.parsing import parse_reference
from ppl_cnn.models.references.photographs import (
    Photograph,
    measure,
    read_photograph,
    spectral_exponent,
)

COLOURS = ((500.0, 400.0, 250.0), (400.0, 450.0, 300.0), (250.0, 300.0, 400.0))
PIXELS = Preprocessing((0.0,) * 3, (1.0,) * 3)


def write_fields(folder, exponent, count, shape=(256, 256, 3), first=0):
    """Draws of a spectral reference about mid-grey, as PNG files."""
    distribution = Spectral(exponent, COLOURS).distribution(shape, PIXELS)
    for index in range(first, first + count):
        x = 128 + np.asarray(distribution.sample(jax.random.key(index)))
        Image.fromarray(x.round().clip(0, 255).astype(np.uint8)).save(folder / f"{index:03}.png")


@pytest.mark.parametrize(
    "exponent", [0.0, 1.0, *(pytest.param(each, marks=pytest.mark.long) for each in (0.7, 1.6))]
)
def test_exponent_and_covariance_of_fields_are_recovered(exponent, tmp_path):
    write_fields(tmp_path, exponent, 16)
    found, covariance, errors = measure(tmp_path, progress=False)
    assert errors.photographs == 16
    assert errors.exponent_error < 0.02
    assert abs(found - exponent) < 5 * errors.exponent_error
    error = np.asarray(errors.covariance_error)
    # Rounding to whole pixels adds 1/12.
    assert (abs(np.asarray(covariance) - COLOURS) < 5 * error + 1 / 12).all()
    # As said by theory where pixels are independent: C_ij has the variance (C_ii C_jj + C_ij^2)/n.
    if exponent == 0:
        c = np.asarray(COLOURS)
        theory = np.sqrt((np.outer(np.diag(c), np.diag(c)) + c**2) / (16 * 256**2))
        assert (error < 2 * theory).all()  # estimated with 15 degrees of freedom
        assert (error > theory / 2).all()


def test_a_larger_photographs_exponent_is_that_of_what_networks_see(tmp_path):
    """A power law looks the same at every scale: so does what is read from half the size."""
    write_fields(tmp_path, 1.2, 6, shape=(512, 640, 3))
    assert read_photograph(tmp_path / "000.png").shape == (256, 320, 3)
    found = Spectral.fit(tmp_path, progress=False)
    # The reduction's own blur bends the upper end of the band by some hundredths.
    assert abs(found.exponent - 1.2) < 5 * found.fit_errors.exponent_error + 0.04


def test_the_covariance_counts_the_differences_between_photographs(tmp_path):
    """Nearly flat photographs of random colours: all the variance is between them."""
    random = np.random.default_rng(0)
    means = random.multivariate_normal([128] * 3, COLOURS, 40)
    for index, mean in enumerate(means):
        x = mean + random.normal(0, 1, (128, 128, 1))
        Image.fromarray(x.round().astype(np.uint8)).save(tmp_path / f"{index}.png")
    _, covariance, errors = measure(tmp_path, progress=False)
    np.testing.assert_allclose(covariance, np.cov(means, rowvar=False) + 1, rtol=0.02, atol=3)
    # A covariance of n normals: relative error sqrt(2/n) on the diagonal.
    ratio = np.diag(errors.covariance_error) / np.diag(covariance)
    assert (ratio < 2 * np.sqrt(2 / 40)).all()
    assert (ratio > np.sqrt(2 / 40) / 2).all()


def test_photographs_without_colour_give_a_field_with_a_density(tmp_path):
    write_fields(tmp_path, 1.0, 3)
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            image.convert("L").save(path)
    found = Spectral.fit(tmp_path, progress=False)
    values = np.linalg.eigvalsh(np.asarray(found.covariance))
    np.testing.assert_allclose(values[0] / values[2], 1e-4, rtol=0.02)
    assert parse_reference(str(found)) == found


def test_the_same_photographs_give_the_same_numbers_in_any_format_and_folder(tmp_path):
    (tmp_path / "deeper").mkdir()
    write_fields(tmp_path / "deeper", 1.0, 2, (140, 160, 3))
    first = measure(tmp_path, progress=False)
    assert measure(tmp_path, progress=False) == first
    with Image.open(tmp_path / "deeper" / "000.png") as image:
        image.save(tmp_path / "a.WebP", lossless=True)
        image.save(tmp_path / "b.TIFF")
    with Image.open(tmp_path / "deeper" / "001.png") as image:
        image.save(tmp_path / "c.bmp")
        image.convert("RGBA").save(tmp_path / "d.png")
    second = measure(tmp_path, progress=False)
    assert second[:1] == pytest.approx(first[:1], rel=1e-5)
    assert second[2].photographs == 6
    assert second[2].skipped == 0


def test_deep_photographs_give_what_those_of_8_bits_give(tmp_path):
    for name, levels in (("fit8", 255), ("fit16", 65_535)):
        (tmp_path / name).mkdir()
        for index in range(3):
            random = np.random.default_rng(index)
            share = np.clip(0.5 + random.normal(size=(160, 160)).cumsum(0).cumsum(1) / 4e3, 0, 1)
            depth = np.uint8 if levels == 255 else np.uint16
            Image.fromarray(np.rint(levels * share).astype(depth)).save(
                tmp_path / name / f"{index}.png"
            )
    eight, sixteen = (measure(tmp_path / name, progress=False) for name in ("fit8", "fit16"))
    assert sixteen.fit_errors.photographs == 3
    np.testing.assert_allclose(sixteen.exponent, eight.exponent, rtol=1e-4)
    np.testing.assert_allclose(sixteen.covariance, eight.covariance, rtol=1e-4)


def test_links_are_followed_and_what_is_left_out_is_told(tmp_path, capsys):
    for folder, count, first in (("real", 2, 0), ("elsewhere", 3, 10), ("real/.thumbs", 3, 20)):
        (tmp_path / folder).mkdir()
        write_fields(tmp_path / folder, 1.0, count, (128, 128, 3), first)
    (tmp_path / "real" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "real" / "damaged.png").write_bytes(b"")
    capsys.readouterr()
    *_, errors = measure(tmp_path / "real")
    assert (errors.photographs, errors.skipped) == (5, 1)
    said = capsys.readouterr().err
    assert "left out 1 that can't be used (an empty file): damaged.png" in said
    assert "left out 1 hidden: .thumbs" in said


def test_files_that_cannot_be_used_are_counted(tmp_path, refused):
    write_fields(tmp_path, 1.0, 2, (128, 128, 3))
    whole = (tmp_path / "001.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.jpg").write_bytes(b"")
    (tmp_path / "text.webp").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    Image.new("RGB", (300, 127)).save(tmp_path / "small.png")
    Image.new("RGB", (300, 300), (9, 8, 7)).save(tmp_path / "flat.png")
    (tmp_path / "notes.txt").write_text("left alone")
    *_, errors = measure(tmp_path, progress=False)
    assert (errors.photographs, errors.skipped) == (2, 5)
    (tmp_path / "000.png").unlink()
    with refused("1 usable", "flat.png", "same brightness", kind=FileError, path=tmp_path):
        measure(tmp_path, progress=False)


def test_a_folder_without_photographs_is_refused(tmp_path, refused):
    with refused("0 usable", "2 or more", kind=FileError, path=tmp_path):
        Spectral.fit(tmp_path)
    with refused("nowhere", kind=FileError, path=tmp_path / "nowhere"):
        Spectral.fit(tmp_path / "nowhere")


def test_steeper_noise_is_read_as_steeper_by_just_that():
    random = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(200)[:, None], np.fft.fftfreq(300))
    frequency[0, 0] = 1
    noise = np.fft.fft2(random.normal(size=(200, 300)))
    exponents = [
        spectral_exponent(np.fft.ifft2(noise * frequency**-steep).real) for steep in (0.0, 0.5, 1.5)
    ]
    # It is of the same noise, but for what the window mixes: neighbouring waves.
    np.testing.assert_allclose(np.diff(exponents), [0.5, 1.0], atol=0.04)


def test_a_photographs_colours_are_its_pixels():
    random = np.random.default_rng(0)
    pixels = random.uniform(0, 255, (130, 150, 3))
    found = Photograph.of(pixels)
    np.testing.assert_allclose(found.mean, pixels.mean((0, 1)))
    expected = np.einsum("rci,rcj->ij", pixels, pixels) / (130 * 150)
    expected -= np.outer(found.mean, found.mean)
    np.testing.assert_allclose(found.covariance, expected)
