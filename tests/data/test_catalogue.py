import json

from ppl_cnn.data.catalogue import DATA_SETS, NAMES, Prepared, find, prepared
from ppl_cnn.errors import ArgumentError, FileError, UnknownNameError


def put(root, folder: str) -> None:
    (root / folder).mkdir(parents=True)
    (root / folder / "dataset_info.json").write_text(json.dumps({"splits": []}))


def test_variants_are_found_by_their_names_and_alone_without(tmp_path, refused):
    root = str(tmp_path)
    assert prepared("mnist", root) == []
    put(tmp_path, "mnist_digits/60k/1.0.0")
    assert find("mnist", root) == find("mnist/60k", root)
    assert find("mnist", root) == ("mnist/60k", tmp_path / "mnist_digits/60k/1.0.0")
    put(tmp_path, "mnist_digits/10k/1.0.0")
    assert [each.name for each in prepared("mnist", root)] == ["mnist/10k", "mnist/60k"]
    with refused("'mnist'", "mnist/10k", "mnist/60k", kind=ArgumentError, argument="data"):
        find("mnist", root)
    assert find("mnist/10k", root).folder == tmp_path / "mnist_digits/10k/1.0.0"


def test_half_written_and_foreign_folders_are_no_data_sets(tmp_path):
    (tmp_path / "mnist_digits/10k/1.0.0").mkdir(parents=True)
    put(tmp_path, "mnist_digits/10k/2.0.0")
    put(tmp_path, "mnist/3.0.1")  # TFDS's own
    put(tmp_path, "mnist_digits/1.0.0")
    assert prepared("mnist", str(tmp_path)) == []


def test_names_that_are_not_there_are_answered_with_what_is(tmp_path, refused):
    root, folder = str(tmp_path), tmp_path / "mnist_digits"
    with refused("'cifar'", *NAMES, kind=UnknownNameError, name="cifar"):
        find("cifar", root)
    command = f"prepare mnist --manual-dir DIR --data-dir {root}`"
    with refused("'mnist'", command, kind=FileError, path=folder):
        find("mnist", root)
    put(tmp_path, "mnist_digits/10k/1.0.0")
    with refused("'mnist/60k'", folder, "has mnist/10k", kind=FileError):
        find("mnist/60k", root)
    with refused("'fashion_mnist/10k'", "fashion_mnist_idx", kind=FileError):
        find("fashion_mnist/10k", root)


def test_what_the_package_ships_is_found_anywhere(tmp_path):
    assert find("fashion-embedded", str(tmp_path)).name == "fashion-embedded"


def test_builders_bear_the_names_of_the_table():
    from importlib import import_module

    folders = [data_set.folder for data_set in DATA_SETS.values()]
    assert len(set(folders)) == len(folders)
    for data_set in DATA_SETS.values():
        module, _, name = data_set.builder.partition(":")
        builder = getattr(import_module(module), name)
        assert builder.name == data_set.folder
        assert bool(builder.BUILDER_CONFIGS) == data_set.variants


def test_sizes_and_classes_are_those_of_what_is_shipped_and_of_the_checks():
    from ppl_cnn.data import open_split
    from ppl_cnn.data.sources.imagenet import IMAGENETTE, ImagenetTars, ImagenetteTars

    embedded = DATA_SETS["fashion-embedded"]
    shipped = open_split("fashion-embedded", "train")
    assert Prepared("fashion-embedded", find("fashion-embedded").folder).counts() == embedded.images
    assert len(shipped.classes) == embedded.classes
    assert ImagenetTars.COUNTS == {"train": 1_281_167, "test": 50_000}
    assert ImagenetteTars.COUNTS == {"train": 9_469, "test": 3_925}
    assert DATA_SETS["imagenette"].classes == len(IMAGENETTE)
