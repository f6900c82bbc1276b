"""What reading photographs costs: images per second of a core, stored whole and at 256 pixels.

    python benchmarks/loading.py FOLDER

FOLDER has large photographs, of which 240 JPEG files of 500x375 are cut. Sharper photographs make
larger files, which take longer: the files' mean size is told. A JSON object for each way of
storing, augmentation and number of threads: images per second of CPU time and of the clock, of
this process alone, at 224 pixels and in batches of 60.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ppl_cnn.data import open_split, training_batches
from ppl_cnn.data.augmentation import CentreView
from ppl_cnn.data.preparing import prepare

COUNT = 240
SIZE = (500, 375)
AUGMENTATIONS = ("none", "crop+flip+colour", "resized-crop+flip")
BATCH, BATCHES = 60, 16


def cut(photographs: Path, tree: Path) -> None:
    """Windows at random places of the photographs, four fifths as wide as these, in two classes."""
    random = np.random.default_rng(0)
    files = sorted(
        file for file in photographs.rglob("*") if file.suffix.lower() in (".jpg", ".png")
    )
    for index in range(COUNT):
        with Image.open(files[index % len(files)]) as image:
            side = 0.8 * min(image.width / SIZE[0], image.height / SIZE[1])
            wide, high = side * SIZE[0], side * SIZE[1]
            left, top = random.uniform(0, (image.width - wide, image.height - high))
            box = (left, top, left + wide, top + high)
            small = image.convert("RGB").resize(SIZE, Image.Resampling.LANCZOS, box)
        folder = tree / str(index % 2)
        folder.mkdir(parents=True, exist_ok=True)
        small.save(folder / f"{index}.jpg", quality=92)


def measure(name: str, data_dir: str, augment: str, threads: int) -> dict[str, float]:
    split = open_split(name, "train", data_dir)
    loader = training_batches(
        split, BATCH, 0, augment=augment, image_shape=(224, 224, 3), short_side=256, threads=threads
    )
    next(loader)
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(BATCHES):
        next(loader)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    images = BATCH * BATCHES
    return {
        "images_per_cpu_second": round(images / cpu),
        "images_per_second": round(images / clock),
    }


class Unseen(CentreView):
    """Decodes nothing: what is left is the part that Python's lock keeps to one thread."""

    def __call__(self, image, position):
        return np.zeros(self.shape, np.uint8)


def locked(name: str, data_dir: str) -> float:
    """Milliseconds of CPU time an image, without decoding and scaling it."""
    split = open_split(name, "train", data_dir)
    view = Unseen((224, 224, 3))
    split.source.read(range(BATCH), view)
    cpu = time.process_time()
    for _ in range(BATCHES):
        split.source.read(range(BATCH), view)
    return 1e3 * (time.process_time() - cpu) / BATCH / BATCHES


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        cut(options.folder, tree)
        for short_side in (None, 256):
            data_dir = str(Path(scratch) / str(short_side))
            cpu = time.process_time()
            prepared = prepare(f"folder:{tree}", data_dir, short_side=short_side).data_set
            cpu = time.process_time() - cpu
            size = sum(file.stat().st_size for file in prepared.folder.glob("*array_record*"))
            stored = {
                "short_side": short_side or "as they are",
                "kilobytes_per_image": round(size / COUNT / 1e3, 1),
                "prepared_per_cpu_second": round(COUNT / cpu),
                "milliseconds_without_decoding": round(locked(prepared.name, data_dir), 3),
            }
            print(json.dumps(stored), flush=True)
            for augment in AUGMENTATIONS:
                for threads in options.threads:
                    line = {"short_side": stored["short_side"], "augment": augment}
                    speed = measure(prepared.name, data_dir, augment, threads)
                    print(json.dumps({**line, "threads": threads, **speed}), flush=True)


if __name__ == "__main__":
    main()
