"""What reading photographs costs: images per second of a core, stored whole and at 256 pixels.

    python -m benchmarks.speed.loading FOLDER

FOLDER has large photographs, of which 240 JPEG files of 500x375 are cut. Sharper photographs make
larger files, which take longer, so the files' mean size is printed. A JSON object for each way of
storing, augmentation and number of threads: images per second of CPU time and of the clock, of
this process alone, at 224 pixels and in batches of 60. With --readers also for so many processes
that read, by the clock alone.
"""

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.common import command_line, say, write_photographs
from ppl_cnn.data import open_split, training_batches
from ppl_cnn.data.augmentation import CentreView
from ppl_cnn.data.preparing import prepare


class Sizes(NamedTuple):
    """How much is measured."""

    photographs: int
    size: tuple[int, int]
    """The photographs' width and height in pixels."""
    side: int
    """Side of the square images that are read, in pixels."""
    short_side: int
    batch: int
    batches: int
    augmentations: tuple[str, ...]


AUGMENTATIONS = ("none", "crop+flip+colour", "resized-crop+flip")
FULL = Sizes(240, (500, 375), 224, 256, batch=60, batches=16, augmentations=AUGMENTATIONS)
TOY = Sizes(8, (80, 60), 32, 48, batch=4, batches=2, augmentations=AUGMENTATIONS[-1:])


def cut(photographs: Path, tree: Path, sizes: Sizes) -> None:
    """Cuts windows at random places of the photographs, four fifths as wide, into two classes."""
    random = np.random.default_rng(0)
    files = sorted(
        file for file in photographs.rglob("*") if file.suffix.lower() in (".jpg", ".png")
    )
    for index in range(sizes.photographs):
        with Image.open(files[index % len(files)]) as image:
            side = 0.8 * min(image.width / sizes.size[0], image.height / sizes.size[1])
            wide, high = side * sizes.size[0], side * sizes.size[1]
            left, top = random.uniform(0, (image.width - wide, image.height - high))
            box = (left, top, left + wide, top + high)
            small = image.convert("RGB").resize(sizes.size, Image.Resampling.LANCZOS, box)
        folder = tree / str(index % 2)
        folder.mkdir(parents=True, exist_ok=True)
        small.save(folder / f"{index}.jpg", quality=92)


def measure(
    name: str, data_dir: str, augment: str, sizes: Sizes, *, threads: int | None, readers: int = 0
) -> dict[str, float]:
    split = open_split(name, "train", data_dir)
    loader = training_batches(
        split,
        sizes.batch,
        0,
        augment=augment,
        image_shape=(sizes.side, sizes.side, 3),
        short_side=sizes.short_side,
        threads=threads,
        readers=readers,
    )
    for _ in range(1 + readers):
        next(loader)
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(sizes.batches):
        next(loader)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    loader.close()
    images = sizes.batch * sizes.batches
    speed: dict[str, float] = {"images_per_second": round(images / clock)}
    if not readers:
        speed["images_per_cpu_second"] = round(images / cpu)
    return speed


class Unseen(CentreView):
    """A view that decodes nothing: the rest is what Python's lock keeps to one thread."""

    def __call__(self, image, position):
        return np.zeros(self.shape, np.uint8)


def locked(name: str, data_dir: str, sizes: Sizes) -> float:
    """Milliseconds of CPU time an image, without decoding and scaling it."""
    split = open_split(name, "train", data_dir)
    view = Unseen((sizes.side, sizes.side, 3))
    split.source.read(range(sizes.batch), view)
    cpu = time.process_time()
    for _ in range(sizes.batches):
        split.source.read(range(sizes.batch), view)
    return 1e3 * (time.process_time() - cpu) / sizes.batch / sizes.batches


def main():
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="photographs; not needed with --toy")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--readers", type=int, nargs="+", default=[], help="1 or more")
    options = parser.parse_args()
    if options.folder is None and not options.toy:
        parser.error("FOLDER must be given")
    sizes = TOY if options.toy else FULL
    with tempfile.TemporaryDirectory() as scratch:
        photographs, tree = options.folder, Path(scratch) / "tree"
        if photographs is None:
            photographs = Path(scratch) / "photographs"
            write_photographs(photographs, 4, (160, 120))
        cut(photographs, tree, sizes)
        for short_side in (None, sizes.short_side):
            data_dir = str(Path(scratch) / str(short_side))
            cpu = time.process_time()
            prepared = prepare(f"folder:{tree}", data_dir, short_side=short_side).data_set
            cpu = time.process_time() - cpu
            size = sum(file.stat().st_size for file in prepared.folder.glob("*array_record*"))
            stored = {"short_side": short_side or "as they are"}
            say(
                **stored,
                kilobytes_per_image=round(size / sizes.photographs / 1e3, 1),
                prepared_per_cpu_second=round(sizes.photographs / cpu),
                milliseconds_without_decoding=round(locked(prepared.name, data_dir, sizes), 3),
            )
            for augment in sizes.augmentations:
                how = [{"threads": threads} for threads in options.threads]
                how += [{"threads": None, "readers": readers} for readers in options.readers]
                for each in how:
                    speed = measure(prepared.name, data_dir, augment, sizes, **each)
                    say(**stored, augment=augment, **each, **speed)


if __name__ == "__main__":
    main()
