import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ppl_cnn.data import open_split
from ppl_cnn.data.augmentation import CentreView
from ppl_cnn.data.preparing import prepare
from ppl_cnn.data.sources.imagenet import IMAGENETTE, ImagenetTars, ImagenetteTars
from ppl_cnn.data.sources.wordnet import readable, wordnet_ids
from ppl_cnn.errors import ArgumentError, FileError


def write_tar(file, contents: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def packed(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    write_tar(buffer, contents)
    return buffer.getvalue()


@pytest.fixture
def originals(tmp_path, photograph, monkeypatch):
    """ILSVRC's two tar files: two images of four classes each, and ten for validation."""
    folder = tmp_path / "originals"
    folder.mkdir()
    classes = {
        f"{name}.tar": packed(
            {f"{name}_{i}.JPEG": photograph(60 + 10 * i, 50, seed=i) for i in range(2)}
        )
        for name in (wordnet_ids()[index] for index in (999, 1, 7, 0))
    }
    with open(folder / "ILSVRC2012_img_train.tar", "wb") as file:
        write_tar(file, classes)
    validation = {f"ILSVRC2012_val_{i:08}.JPEG": photograph(40, 50, seed=i) for i in range(1, 11)}
    with open(folder / "ILSVRC2012_img_val.tar", "wb") as file:
        write_tar(file, validation)
    monkeypatch.setattr(ImagenetTars, "COUNTS", {"train": 8, "test": 10})
    return folder


def test_classes_are_in_the_order_of_their_ids_and_called_as_networks_call_them():
    from ppl_cnn.models.networks.catalogue import network_named
    from ppl_cnn.models.units.class_names import class_names

    ids = wordnet_ids()
    assert (len({*ids}), list(ids)) == (1000, sorted(ids))
    assert readable(ids) == class_names(network_named("alexnet"))
    assert readable(IMAGENETTE)[:2] == ("tench", "English springer")
    assert readable(IMAGENETTE)[9] == "parachute"
    assert readable(("n01440764", "cat")) == ("n01440764", "cat")
    assert list(IMAGENETTE) == sorted(IMAGENETTE)


def test_nested_tar_files_come_back_with_their_labels(originals, tmp_path):
    done = prepare("imagenet2012", str(tmp_path), manual_dir=originals)
    assert done.data_set == ("imagenet2012/whole", tmp_path / "imagenet_tars" / "whole" / "1.0.0")
    assert (done.images, done.left_out) == ("8 train + 10 test images", {})
    import tensorflow_datasets as tfds

    sources = tfds.builder_from_directory(done.data_set.folder).as_data_source(
        decoders={"image": tfds.decode.SkipDecoding()}
    )
    found = {example["name"].decode(): example for example in sources["train"]}
    assert len(found) == 8
    for name, example in found.items():
        assert wordnet_ids()[example["label"]] == name.partition("_")[0]
    with tarfile.open(originals / "ILSVRC2012_img_val.tar") as tar:
        for example in sources["test"]:
            assert example["image"] == tar.extractfile(example["name"].decode()).read()
    # The first of ILSVRC's validation labels, as the devkit has them in this order of classes.
    labels = {example["name"].decode()[-7:-5]: example["label"] for example in sources["test"]}
    expected = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332)
    assert [labels[f"{i:02}"] for i in range(1, 11)] == list(expected)


def test_short_sides_make_another_variant(originals, tmp_path, refused):
    data_dir = str(tmp_path)
    done = prepare("imagenet2012", data_dir, manual_dir=originals, short_side=40)
    assert done.data_set.name == "imagenet2012/short-40"
    split = open_split("imagenet2012", "test", data_dir)
    assert (split.name, split.identity) == (
        "imagenet2012/short-40",
        "imagenet_tars/short-40/1.0.0",
    )
    assert (len(split.classes), split.classes[1]) == (1000, "goldfish")
    prepare("imagenet2012", data_dir, manual_dir=originals)
    both = ("imagenet2012/short-40", "imagenet2012/whole")
    with refused(*both, kind=ArgumentError, argument="data"):
        open_split("imagenet2012", "test", data_dir)


def test_tar_files_that_are_not_ilsvrcs(originals, tmp_path, photograph, refused):
    data_dir = str(tmp_path)
    train, validation = (originals / f"ILSVRC2012_img_{part}.tar" for part in ("train", "val"))
    whole = train.read_bytes()

    def refuse(tar: Path, *facts: str) -> None:
        with refused(tar, *facts, kind=FileError, path=tar):
            prepare("imagenet2012", data_dir, manual_dir=originals)
        assert not list(tmp_path.rglob("dataset_info.json"))

    train.write_bytes(whole[: len(whole) // 2])
    refuse(train, "not an intact tar file", "fresh copy")
    train.write_bytes(packed({"n00000000.tar": packed({})}))
    refuse(train, "contains n00000000.tar", "n01440764.tar")
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        first = tar.getmembers()[0]
        train.write_bytes(packed({first.name: tar.extractfile(first).read()}))
    refuse(train, "2 images", "not 8")
    train.write_bytes(whole)
    validation.write_bytes(packed({"cat.jpg": photograph(40, 40)}))
    refuse(validation, "cat.jpg", "ILSVRC2012_val_00000001.JPEG")
    validation.unlink()
    refuse(validation, "missing", "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar")


def test_damaged_images_are_left_out_but_not_many(originals, tmp_path, photograph, refused):
    file = originals / "ILSVRC2012_img_val.tar"
    names = [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 11)]
    contents = dict.fromkeys(names, photograph(40, 40)) | {names[3]: photograph(40, 40)[:200]}
    file.write_bytes(packed(contents))
    with refused("1 of the 10 test images", f"({names[3]}: ", kind=FileError, path=originals):
        prepare("imagenet2012", str(tmp_path), manual_dir=originals)


def imagenette(file: Path, photograph, train: int = 3) -> None:
    top = file.name.removesuffix(".tgz")
    contents = {f"{top}/noisy_imagenette.csv": b"path,labels\n"}
    for split, count in (("train", train), ("val", 2)):
        for label, name in enumerate(IMAGENETTE):
            for i in range(count):
                contents[f"{top}/{split}/{name}/{i}.JPEG"] = photograph(50, 40, seed=10 * i + label)
    with open(file, "wb") as opened:
        write_tar(opened, contents, "w:gz")


def test_imagenette(tmp_path, photograph, monkeypatch, refused):
    monkeypatch.setattr(ImagenetteTars, "COUNTS", {"train": 30, "test": 20})
    originals, data_dir = tmp_path / "originals", str(tmp_path)
    originals.mkdir()
    imagenette(originals / "imagenette2-320.tgz", photograph)
    done = prepare("imagenette", data_dir, manual_dir=originals)
    assert (done.data_set.name, done.images) == ("imagenette/320px", "30 train + 20 test images")
    split = open_split("imagenette", "train", data_dir)
    assert split.classes == readable(IMAGENETTE)
    labels = split.source.read(range(30), CentreView((8, 8, 3)))["label"]
    assert np.bincount(labels).tolist() == [3] * 10
    shorter = prepare("imagenette", data_dir, manual_dir=originals, short_side=32)
    assert shorter.data_set.name == "imagenette/320px-short-32"
    both = ("imagenette/320px", "imagenette/320px-short-32")
    with refused(*both, kind=ArgumentError, argument="data"):
        open_split("imagenette", "train", data_dir)


def test_imagenettes_that_cannot_be_used(tmp_path, photograph, refused):
    def refuse(path: Path, *facts: str) -> None:
        with refused(path, *facts, kind=FileError, path=path):
            prepare("imagenette", str(tmp_path / "data"), manual_dir=tmp_path)

    tar = tmp_path / "imagenette2.tgz"
    imagenette(tar, photograph, train=1)
    refuse(tar, "10 images", "not 9,469")
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    refuse(tar, "not an intact tar file")
    (tmp_path / "imagenette2-160.tgz").touch()
    refuse(tmp_path, "imagenette2.tgz and imagenette2-160.tgz")
    for file in tmp_path.glob("*.tgz"):
        file.unlink()
    refuse(tmp_path, "no tar file", "imagenette2-320.tgz")
