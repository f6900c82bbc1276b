"""Fuzzes what reads images and folders: `python -m tests.data.fuzz images --cases 200000 --seed 0`.

`images` mutates PNG, JPEG, TIFF, GIF, WebP, BMP, PPM, JPEG 2000 and AVIF files: every case must end
with pixels or an `ImageError` of one line. `folders` makes random trees with links, loops, pipes
and odd names: every case must end with a listing in which each image stands once, or with an error
of one or two sentences. No case may take long or leave memory behind.
"""

import argparse
import contextlib
import gc
import io
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ppl_cnn.data.image_files import ImageError, open_image
from ppl_cnn.data.sources.folders import Tree
from ppl_cnn.data.walk import account, list_images
from ppl_cnn.errors import InputError
from tests.fuzzing import Broken, mutated, peak, resident, restart_peak

SECONDS, SECONDS_PER_PIXEL = 1.0, 2e-7
"""Processor time that a case may take. A file of some bytes may say that it has 150 million pixels,
and formats that compress runs may be right."""
GROWTH = 128 * 2**20
"""Bytes that resident memory may grow by."""
MEMORY, MEMORY_PER_PIXEL = 48 * 2**20, 32
"""Bytes that a case may take, by the pixels that its file says it has where it isn't refused for
their number. libwebp has two canvases of 4 bytes per pixel, and Pillow copies one of them twice."""


# Images.


def encoded(pixels: np.ndarray, mode: str | None = None, kind: str = "PNG", **options) -> bytes:
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def image_seeds() -> list[bytes]:
    draw = np.random.default_rng(0)
    colour, grey = (draw.integers(0, 256, (12, 17, 3)[:n], np.uint8) for n in (3, 2))
    deep, share = 257 * grey.astype(np.uint16), (grey / 255).astype(np.float32)
    turned = Image.Exif()
    turned[274] = 6
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - colour)]}
    png = [encoded(colour, mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    png += [encoded(deep), encoded(colour, exif=turned), encoded(colour, **frames)]
    png += [encoded(colour, "P", transparency=3), encoded(deep, transparency=257)]
    jpeg = [encoded(colour, mode, "JPEG") for mode in ("L", "RGB", "CMYK")]
    jpeg += [encoded(colour, kind="JPEG", progressive=True, exif=turned)]
    tiff = [encoded(each, kind="TIFF") for each in (grey, colour, deep, share)]
    ways = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    tiff += [encoded(colour, kind="TIFF", compression=each) for each in ways]
    tiff += [
        encoded(colour, kind="TIFF", tiffinfo={274: 8}),
        encoded(colour, kind="TIFF", **frames),
    ]
    rest = [
        encoded(colour, kind=kind) for kind in ("GIF", "BMP", "PPM", "WEBP", "JPEG2000", "AVIF")
    ]
    rest += [encoded(colour, kind=kind, **frames) for kind in ("GIF", "WEBP")]
    rest += [encoded(colour, "RGBA", "WEBP", lossless=True), encoded(deep, kind="PPM")]
    return png + jpeg + tiff + rest


TOKENS = (
    *(struct.pack(f"<{size}", number) for size in "HI" for number in (1, 3, 255, 32_768, 65_535)),
    *(struct.pack(f">{size}", number) for size in "HI" for number in (1, 3, 255, 32_768, 65_535)),
    *(b"IHDR", b"IDAT", b"tRNS", b"PLTE", b"eXIf", b"acTL", b"fcTL", b"IEND", b"zTXt"),
    *(b"\xff\xd8", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xda", b"\xff\xd9", b"\xff\xe1"),
    *(b"\x2c", b"\x21\xf9\x04", b"\x3b", b"VP8L", b"VP8X", b"ANMF", b"ALPH", b"EXIF", b"RIFF"),
    *(b"P6\n99999999 99999999\n255\n", b"999999999", b"Exif\0\0", b"II*\0", b"MM\0*"),
)


def with_sums(png: bytes) -> bytes:
    """A PNG file whose chunks have the check sums of what they contain."""
    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


def image_cases(seed: int) -> Iterator[bytes]:
    draw, files = random.Random(seed), image_seeds()
    while True:
        content = mutated(draw.choice(files), files, draw, tokens=TOKENS, heads=(40, 200))
        png = content.startswith(b"\x89PNG") and draw.random() < 0.9
        yield with_sums(content) if png else content


def check_image(content: bytes) -> tuple[str, int]:
    """Reads the content; the result is "read" or "refused", and the number of pixels."""
    size, channels = (0, 0), 1 + 2 * (len(content) % 2)
    least = (4, 4) if len(content) % 3 else None
    try:
        with open_image(content) as image:
            image.frames()
            size = image.size
            pixels = np.asarray(image.decoded(channels, least))
    except ImageError as error:
        if not re.fullmatch(r"[^\n]{3,300}[^\n.]", str(error)):
            raise Broken(f"no line: {str(error)!r}") from None
        return "refused", size[0] * size[1]
    shape = (size[1], size[0], 3)[: 3 if channels == 3 else 2]
    if pixels.dtype != np.uint8 or (least is None and pixels.shape != shape):
        raise Broken(f"{pixels.dtype} of shape {pixels.shape} in an image of {size}")
    return "read", size[0] * size[1]


# Folders.

NAMES = (
    *(
        "a",
        "b",
        "c",
        "train",
        "Training",
        "val",
        "test",
        "test_set",
        "x.png",
        "y.JPG",
        "z",
        "n.txt",
    ),
    *(
        ".hidden",
        "__MACOSX",
        "#1",
        "50%",
        "a,b",
        "?",
        " ",
        "two\nlines",
        "caf\udce9",
        "猫",
        "'\"",
        "*",
    ),
    *("[0]", "{}", "$HOME", "~", "-r", "a\\b", "\u202e", "x" * 255),
)


def grow(folder: Path, draw: random.Random, files: list[bytes]) -> None:
    """Fills a folder with a random tree, half of the time around one that is well formed."""
    places = [folder]
    if draw.random() < 0.5:
        splits = draw.choice(((".",), ("train", "val"), ("Training", "valid", "test_set")))
        for split in splits:
            for label in ("a", "b"):
                places.append(folder / split / label)
                places[-1].mkdir(parents=True)
                for number in range(3):
                    (places[-1] / f"{number}.png").write_bytes(files[0])
    for _ in range(draw.choice((0, 2, 5, 10, 20, 30))):
        place = draw.choice(places)
        path, target = place / draw.choice(NAMES), draw.choice(places)
        with contextlib.suppress(OSError):  # the name is taken, or links to itself
            match draw.randrange(8):
                case 0 | 1 | 2:
                    path.mkdir()
                    places.append(path)
                case 3:
                    path.symlink_to(draw.choice((target, os.path.relpath(target, place), "none")))
                case 4:
                    existing = [each for each in target.iterdir() if each.is_file()]
                    os.link(draw.choice(existing), path) if existing else os.mkfifo(path)
                case _:
                    if not os.path.lexists(path):  # not through links or into pipes
                        path.write_bytes(draw.choice(files))


def folder_cases(seed: int) -> Iterator[Path]:
    draw, files = random.Random(seed), [*image_seeds()[:3], b"", b"no image"]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as root:
        while True:
            folder = Path(root) / "tree"
            folder.mkdir()
            grow(folder, draw, files)
            yield folder
            shutil.rmtree(folder)


def check_folder(folder: Path) -> tuple[str, int]:
    """Lists a tree and its layout; the result is "read" or "refused", and no pixels."""
    listing = list_images(folder)
    inodes = [os.stat(folder / each.path).st_ino for each in listing.files]
    if len({*inodes}) < len(inodes):
        raise Broken(f"one image stands twice in {listing.files}")
    if any(re.search(r"(^|/)\.", each.path) for each in listing.files):
        raise Broken(f"hidden files in {listing.files}")
    told = {each.path for each in (*listing.files, *listing.left_out)} | {*listing.folders}
    for below, folders, names in os.walk(folder):
        folders[:] = [
            each for each in folders if os.path.relpath(f"{below}/{each}", folder) in told
        ]
        for name in (*folders, *names):
            if (path := os.path.relpath(f"{below}/{name}", folder)) not in told:
                hidden = any(path.startswith(f"{each.path}/") for each in listing.left_out)
                if not hidden:
                    raise Broken(f"nothing is said of {path!r}")
    if any("\n" in line for line in account(listing.left_out)):
        raise Broken("an account of more than a line for each reason")
    try:
        tree = Tree.read(folder)
    except InputError as error:
        if not re.fullmatch(r"[^\n]{10,2000}\.", str(error)):
            raise Broken(f"no sentence: {str(error)!r}") from None
        return "refused", 0
    paths = [path for files in tree.splits.values() for path, _ in files]
    labels = {label for _, label in tree.splits["train"]}
    if len({*paths}) < len(paths) or labels != {*range(len(tree.classes))}:
        raise Broken(f"not a partition, or a class without images: {tree}")
    return "read", 0


# The loop.


def fuzz(what: str, count: int, seed: int) -> None:
    cases: Iterator[bytes] | Iterator[Path]
    check: Callable[..., tuple[str, int]]
    cases, check = {
        "images": (image_cases(seed), check_image),
        "folders": (folder_cases(seed), check_folder),
    }[what]

    def hang(*_: object) -> None:
        raise Broken("a case took 40 s")

    signal.signal(signal.SIGPROF, hang)
    results, begin, before, most = {"read": 0, "refused": 0}, time.process_time(), 0, 0
    for number, case in enumerate(cases, 1):
        signal.setitimer(signal.ITIMER_PROF, 40)
        restart_peak()
        started, held = time.process_time(), resident()
        try:
            result, pixels = check(case)
            results[result] += 1
            seconds = time.process_time() - started
            if seconds > SECONDS + SECONDS_PER_PIXEL * pixels:
                raise Broken(f"{seconds:.2f} s")
            if (taken := peak() - held) > MEMORY + MEMORY_PER_PIXEL * pixels:
                raise Broken(f"{taken:,} bytes of memory for {pixels:,} pixels")
        except BaseException:
            said = repr(case) if isinstance(case, bytes) else "\n".join(map(repr, case.rglob("*")))
            print(f"case {number} of seed {seed} is {said}", file=sys.stderr)
            raise
        most = max(most, peak())
        if number == min(count, 1000):
            before = resident()
        if number % 1000 == 0:
            gc.collect()  # Pillow's objects refer to each other; a large one waits for this
        if number % 1000 == 0 and resident() - before > GROWTH:
            raise Broken(f"memory grew from {before:,} to {resident():,} bytes")
        if number == count:
            break
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(
        f"{what}: {count:,} cases in {time.process_time() - begin:.0f} s of processor time;"
        f" {results['read']:,} were read, {results['refused']:,} refused; resident memory"
        f" {before / 1e6:.1f} MB early, {resident() / 1e6:.1f} after all, {most / 1e6:.1f} at the"
        " peak"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("images", "folders"))
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    fuzz(options.what, options.cases, options.seed)


if __name__ == "__main__":
    main()
