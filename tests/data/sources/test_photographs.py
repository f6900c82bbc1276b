import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from ppl_cnn.data.image_files import ImageError
from ppl_cnn.data.sources.photographs import check_short_side, in_order, stored
from ppl_cnn.errors import ArgumentError


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_what_is_intact_and_small_enough_is_kept_as_it_came(photograph):
    for content in (photograph(90, 60), photograph(90, 60, mode="L")):
        assert stored(content, None) is content
        assert stored(content, 60) is content
    png = encoded(Image.new("RGBA", (9, 7)), "PNG")
    assert stored(png, None) is png


def test_colours_of_printers_become_rgb(photograph):
    printed = photograph(90, 60, mode="CMYK")
    kept = opened(stored(printed, None))
    assert (kept.format, kept.mode, kept.size) == ("JPEG", "RGB", (90, 60))
    peer = np.asarray(opened(printed).convert("RGB"), float)
    assert np.abs(np.asarray(kept, float) - peer).mean() < 2


@pytest.mark.parametrize(
    ("size", "scaled"), [((90, 60), (60, 40)), ((60, 90), (40, 60)), ((800, 640), (50, 40))]
)
def test_longer_short_sides_are_scaled_down(photograph, size, scaled):
    content = photograph(*size)
    kept = opened(stored(content, 40))
    assert (kept.format, kept.mode, kept.size) == ("JPEG", "RGB", scaled)
    peer = opened(content).resize(scaled, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(kept, float) - np.asarray(peer, float)).mean() < 2.5
    assert opened(stored(photograph(*size, mode="L"), 40)).mode == "L"


@pytest.mark.parametrize("short_side", [None, 32])
def test_damaged_images_are_noticed(photograph, short_side):
    content = photograph(300, 200)
    for damaged in (content[: len(content) // 2], content[:-200], b"", b"no image", content[2:]):
        with pytest.raises(ImageError):
            stored(damaged, short_side)


def test_deep_and_turned_images_are_kept_whole_and_scaled_in_8_bits_upright():
    deep = encoded(Image.fromarray(np.full((90, 60), 40_000, np.uint16)), "PNG")
    assert stored(deep, None) is deep
    scaled = opened(stored(deep, 40))
    assert (scaled.mode, scaled.size) == ("L", (40, 60))
    assert np.abs(np.asarray(scaled, float) - 40_000 / 257).max() < 2
    turned, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6
    smooth = np.broadcast_to(np.linspace(0, 255, 90)[None], (60, 90)).astype(np.uint8)
    Image.fromarray(smooth).save(turned, "JPEG", exif=exif)
    kept = opened(stored(turned.getvalue(), 40))
    assert kept.size == (40, 60)
    assert np.asarray(kept)[0].max() < 10 < 245 < np.asarray(kept)[-1].min()


def test_bombs_are_damaged_images_too(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match="too large"):
        stored(encoded(Image.new("L", (9, 7)), "PNG"), None)


def test_work_is_done_in_threads_and_comes_in_order_a_few_at_a_time():
    taken, at_once, most = 0, 0, 0
    lock = threading.Lock()

    def items():
        nonlocal taken
        for item in range(60):
            taken += 1
            yield item

    def work(item: int) -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.002 * (item % 3))
        with lock:
            at_once -= 1
        return item * item

    results = in_order(work, items(), 3)
    assert next(results) == (0, 0)
    assert taken == 12
    assert list(results) == [(item, item * item) for item in range(1, 60)]
    assert 1 < most <= 3


def test_short_sides_that_are_too_short(refused):
    check_short_side(None)
    check_short_side(256)
    with refused("`short_side=16`", "32", kind=ArgumentError, argument="short_side"):
        check_short_side(16)
