import json

import pytest

from ppl_cnn import InputError
from ppl_cnn.data.catalogue import DATA_SETS, find, prepared


def put(root, folder: str) -> None:
    (root / folder).mkdir(parents=True)
    (root / folder / "dataset_info.json").write_text(json.dumps({"splits": []}))


def test_variants_are_found_by_their_names_and_alone_without(tmp_path):
    root = str(tmp_path)
    assert prepared("mnist", root) == []
    put(tmp_path, "mnist_digits/60k/1.0.0")
    assert find("mnist", root) == find("mnist/60k", root)
    assert find("mnist", root) == ("mnist/60k", tmp_path / "mnist_digits/60k/1.0.0")
    put(tmp_path, "mnist_digits/10k/1.0.0")
    assert [each.name for each in prepared("mnist", root)] == ["mnist/10k", "mnist/60k"]
    with pytest.raises(InputError, match=r"say mnist/10k or mnist/60k\."):
        find("mnist", root)
    assert find("mnist/10k", root).folder == tmp_path / "mnist_digits/10k/1.0.0"


def test_half_written_and_foreign_folders_are_no_data_sets(tmp_path):
    (tmp_path / "mnist_digits/10k/1.0.0").mkdir(parents=True)
    put(tmp_path, "mnist_digits/10k/2.0.0")
    put(tmp_path, "mnist/3.0.1")  # TFDS's own
    put(tmp_path, "mnist_digits/1.0.0")
    assert prepared("mnist", str(tmp_path)) == []


def test_names_that_are_not_there_are_answered_with_what_is(tmp_path):
    root = str(tmp_path)
    with pytest.raises(InputError, match=r"no data set 'cifar'; there are fashion-embedded, "):
        find("cifar", root)
    with pytest.raises(InputError, match=r"prepare mnist --manual-dir DIR --data-dir /.*\.$"):
        find("mnist", root)
    put(tmp_path, "mnist_digits/10k/1.0.0")
    with pytest.raises(InputError, match=r"mnist/60k isn't prepared .* \(there is mnist/10k\)"):
        find("mnist/60k", root)
    with pytest.raises(InputError, match="fashion_mnist/10k isn't prepared"):
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
