import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from ppl_cnn.data.image_files import ImageError, OpenedImage, is_image, open_image, read_pixels
from ppl_cnn.errors import FileError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
"""Rows and columns can't be mistaken for each other."""
DEEP = 257 * GREY.astype(np.uint16)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(content: bytes, channels: int = 1) -> np.ndarray:
    with open_image(content) as image:
        pixels = np.asarray(image.decoded(channels))
        assert image.size == pixels.shape[1::-1]
    return pixels


def tiff(pixels: np.ndarray, bits: int, kind: int, photometric: int = 1, order: str = "<") -> bytes:
    """An uncompressed grey TIFF of any depth, by hand."""
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    rows, cols = pixels.shape
    tags = ((256, cols), (257, rows), (258, bits), (259, 1), (262, photometric), (273, 8))
    tags += ((277, 1), (278, rows), (279, len(data)), (339, kind))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


# How an image that is to be shown as GREY is stored, for each EXIF orientation.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[::-1],
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a.T[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "MPO"])
def test_images_are_upright(orientation, kind):
    exif = Image.Exif()
    exif[274] = orientation
    large = np.kron(np.ascontiguousarray(STORED[orientation](GREY)), np.ones((16, 16), np.uint8))
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(large, kind, exif=exif, **options)
    assert np.abs(read(content)[8::16, 8::16].astype(int) - GREY).max() < 4


def test_a_large_jpeg_is_upright_too_where_a_part_of_its_size_will_do():
    exif = Image.Exif()
    exif[274] = 6
    large = np.kron(np.ascontiguousarray(GREY.T[::-1]), np.ones((64, 64), np.uint8))
    with open_image(encoded(large, "JPEG", exif=exif)) as image:
        assert image.size == (256, 192)
        assert not image.is_upright
        small = image.decoded(1, least=(60, 40))
    assert small.size == (64, 48)
    assert np.abs(np.asarray(small)[8::16, 8::16].astype(int) - GREY).max() < 4


@pytest.mark.parametrize(
    "content",
    [
        encoded(DEEP),
        encoded(DEEP, "TIFF"),
        encoded(DEEP, "PPM"),
        encoded(DEEP.astype(np.int32), "PPM"),
        tiff(DEEP, 16, 1, order=">"),
        tiff(65_535 - DEEP, 16, 1, photometric=0),
        tiff((DEEP // 2).astype(np.int16), 16, 2),
        tiff(GREY.astype(np.uint32) * 16_843_009, 32, 1),
        tiff(GREY.astype(np.int32) * 8_421_504, 32, 2),
        tiff((GREY / 255).astype(np.float32), 32, 3),
        tiff((1 - GREY / 255).astype(np.float32), 32, 3, photometric=0, order=">"),
    ],
)
def test_deep_images_are_scaled_by_their_depth(content):
    np.testing.assert_array_equal(read(content), GREY)
    np.testing.assert_array_equal(read(content, 3), np.stack([GREY] * 3, -1))


def test_twelve_bits_are_scaled_by_twelve():
    values = (np.asarray([[0, 4095, 2048, 16]]) * np.ones((2, 1))).astype(int)
    packed = bytes(
        byte
        for row in values
        for first, second in row.reshape(-1, 2).tolist()
        for byte in (first >> 4, (first & 15) << 4 | second >> 8, second & 255)
    )
    image = tiff(np.frombuffer(packed, np.uint8).reshape(2, 6), 12, 1)
    content = image.replace(struct.pack("<HHII", 256, 4, 1, 6), struct.pack("<HHII", 256, 4, 1, 4))
    np.testing.assert_array_equal(read(content)[0], [0, 255, 128, 1])


def on_white() -> np.ndarray:
    """GREY whose left half is transparent, on white."""
    shown = GREY.copy()
    shown[:, :2] = 255
    return shown


def cut_out(under: int, alpha: int = 0) -> Image.Image:
    """GREY whose left half is transparent, with this grey below."""
    pixels = np.where(on_white() == 255, under, GREY).astype(np.uint8)
    return Image.fromarray(
        np.stack([*[pixels] * 3, np.where(on_white() == 255, alpha, 255).astype(np.uint8)], -1)
    )


def palette() -> Image.Image:
    image = Image.fromarray(np.where(on_white() == 255, 7, GREY).astype(np.uint8)).convert("P")
    image.info["transparency"] = 7
    return image


@pytest.mark.parametrize(
    "content",
    [
        encoded(cut_out(0)),
        encoded(cut_out(200)),
        encoded(cut_out(0).convert("LA")),
        encoded(cut_out(0), "WEBP", lossless=True, exact=True),
        encoded(cut_out(0), "TIFF"),
        encoded(palette()),
        encoded(palette(), "GIF"),
        encoded(np.where(on_white() == 255, 7, GREY).astype(np.uint8), transparency=7),
        encoded(np.where(on_white() == 255, 7, DEEP).astype(np.uint16), transparency=7),
    ],
)
def test_what_is_transparent_shows_white(content):
    np.testing.assert_array_equal(read(content), on_white())
    np.testing.assert_array_equal(read(content, 3)[..., 1], on_white())


def test_half_transparent_is_half_white():
    assert read(encoded(cut_out(100, alpha=128)))[0, 0] in (177, 178)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_its_first_frame(kind):
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(first, kind, save_all=True, append_images=[second], **options)
    with open_image(content) as image:
        assert image.frames() == 2
    np.testing.assert_array_equal(read(content), GREY)


def test_colours_of_printers_and_palettes_are_pillows():
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8))
    for mode in ("CMYK", "P", "1", "HSV", "YCbCr", "LAB"):
        image = colour.convert(mode) if mode != "LAB" else Image.new("LAB", (7, 9), (128, 128, 128))
        expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(OpenedImage(image).decoded(3)), expected)


WHOLE = encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), "JPEG")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"\n<!DOCTYPE html><html>404", "HTML"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"no image at all", "no intact image"),
        (WHOLE[: len(WHOLE) // 2], "truncated"),
        (WHOLE[:100], "Truncated"),
        (tiff((GREY * 2.0).astype(np.float32), 32, 3), "from 0 to 440, not in 0..1"),
        (tiff(np.full((3, 4), np.nan, np.float32), 32, 3), "nan"),
        (tiff(GREY.astype(np.int16) - 9, 16, 2), "negative"),
        (tiff(GREY.astype(np.uint16), 16, 1), "black as it stands: pixels up to 220"),
        (tiff(DEEP.astype(np.uint32), 32, 1), "black as it stands: pixels up to 56540"),
        (encoded(GREY.astype(np.uint16)), "its depth has 65535"),
    ],
)
def test_what_cannot_be_read_is_said(content, words, tmp_path, refused):
    with pytest.raises(ImageError, match=words):
        read(content)
    path = tmp_path / "a #1, 50%.png"
    path.write_bytes(content)
    with refused(path, words, kind=FileError, path=path):
        read_pixels(path)


def test_what_is_no_file_is_not_waited_for(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe.png")
    for name, words in (
        ("pipe.png", "not a file"),
        ("none.png", "no such file"),
        ("", "not a file"),
    ):
        with refused(words, kind=FileError):
            read_pixels(tmp_path / name)
    assert not is_image(tmp_path / "pipe.png")


def test_large_images_are_read_and_bombs_named(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read(encoded(GREY)).shape == (3, 4)  # Pillow warns from here to twice the limit
    with pytest.raises(ImageError, match=r"too large.*21 pixels"):
        read(encoded(np.zeros((3, 7), np.uint8)))
    monkeypatch.undo()
    with pytest.raises(ImageError, match="too large: 65,536 x 1 pixels"):
        read(encoded(np.zeros((1, 65_536), np.uint8)))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG2000", "BMP"])
def test_size_is_judged_before_pixels_are_decoded(kind, monkeypatch, tmp_path, refused):
    path = tmp_path / "image"
    path.write_bytes(content := encoded(Image.fromarray(GREY), kind))
    monkeypatch.setattr("ppl_cnn.data.image_files.SPARSE", 10)
    monkeypatch.setattr("ppl_cnn.data.image_files.PIXELS_PER_BYTE", 0.001)
    monkeypatch.setattr(Image.Image, "load", None)  # Not even called.
    length = f"4 x 3 pixels in a file of {len(content):,} bytes"
    with pytest.raises(ImageError, match=f"too large: {length}, so it is blank or damaged"):
        read(content)
    with refused(path, length, kind=FileError):
        read_pixels(path)


def test_blank_scans_are_read_and_small_files_of_huge_images_are_not():
    page = Image.new("1", (4096, 4096), 1)
    assert read(encoded(page)).all()
    with pytest.raises(ImageError, match="too large: 10,000 x 9,000 pixels in a file of"):
        read(encoded(Image.new("1", (10_000, 9_000)), "TIFF", compression="group4"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_large_cut_outs_are_composited_in_strips(mode):
    pixels = np.full((1100, 1000), 200, np.uint8)
    pixels[::2] = 7
    clear = np.where(pixels == 7, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "P":
        image = image.convert("P")
        image.info["transparency"] = 7
    else:
        image = image.convert(mode)
        image.putalpha(Image.fromarray(clear))
    expected = np.where(pixels == 7, 255, 200)
    np.testing.assert_array_equal(np.asarray(OpenedImage(image).decoded(1)), expected)


def test_orientation_that_cannot_be_read_says_nothing():
    assert read(encoded(GREY, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")).shape == (3, 4)


def test_a_bare_key_is_no_reason():
    """Pillow raises KeyError(259) of a second page whose compression, tag 259, is 259 too."""
    page = [(256, 1, 1), (257, 1, 1), (258, 1, 8), (262, 1, 1), (273, 1, 8), (278, 1, 1)]
    content = b"II*\0" + struct.pack("<I", 9) + b"\x07"
    for tags, is_last in ((page, False), ([*page[:3], (259, 1, 259), *page[3:]], True)):
        following = 0 if is_last else len(content) + 2 + 12 * len(tags) + 4
        entries = b"".join(struct.pack("<HHII", tag, 3, *rest) for tag, *rest in tags)
        content += struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    with open_image(content) as image:
        assert np.asarray(image.decoded(1)) == 7
        with pytest.raises(ImageError, match=r"damaged \(KeyError: 259\)"):
            image.frames()
