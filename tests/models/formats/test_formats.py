import numpy as np
import pytest
import safetensors.numpy

from ppl_cnn.models.formats import read_tensors, tensors_of
from ppl_cnn.models.formats.names import listed, shown


def test_the_content_tells_the_format_and_not_the_name(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(safetensors.numpy.save({"module.a.weight": np.ones(3, np.float32)}))
    assert set(read_tensors(path)) == {"a.weight"}


def test_files_that_cannot_be_read_are_refused(tmp_path, refused):
    with refused("nowhere.pth is missing"):
        read_tensors(tmp_path / "nowhere.pth")
    with refused("can't be read"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY\1\0", b"name: 'AlexNet'", b"\xff" * 300]
)
def test_other_formats_are_refused(content, tmp_path, refused):
    path = tmp_path / "file"
    path.write_bytes(content)
    with refused(str(path), "none of the formats", "safetensors, PyTorch, caffemodel, npz"):
        read_tensors(path)


def test_names_are_shown_so_that_they_stay_in_the_sentence():
    assert shown("features.0.weight") == "features.0.weight"
    assert shown("a. B\nc") == "'a. B\\nc'"
    assert len(shown("a " * 1000)) < 50
    assert listed(map(str, range(7))) == "0, 1, 2, 3, 4 and 2 more"
    assert listed(["a"]) == "a"


def test_half_precision_of_little_bytes_may_not_grow_without_bound(refused):
    import pickle

    array = np.ones(1000, np.float16)
    content = pickle.dumps({str(i): array for i in range(500)})
    with refused("more than 64 times"):
        tensors_of(content)
