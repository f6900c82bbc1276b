import numpy as np

from ppl_cnn.errors import FileError
from ppl_cnn.inference.runs.exemplars import Exemplars

FOUND = Exemplars(
    np.arange(24, dtype=np.uint8).reshape(2, 4, 3, 1),
    np.asarray([2.5, -1.0], np.float32),
    ("a/é.png", "b.png"),
    ("", "Bag"),
    "photos",
    17,
    "anywhere",
)


def test_what_is_saved_is_read_again(tmp_path):
    assert Exemplars.read(tmp_path) is None
    FOUND.save(tmp_path)
    found = Exemplars.read(tmp_path)
    np.testing.assert_array_equal(found.images, FOUND.images)
    np.testing.assert_array_equal(found.responses, FOUND.responses)
    assert found[2:] == FOUND[2:]
    assert [path.name for path in tmp_path.iterdir()] == ["exemplars.npz"]


def test_a_damaged_file_is_told(tmp_path, refused):
    FOUND.save(tmp_path)
    path = tmp_path / "exemplars.npz"
    path.write_bytes(path.read_bytes()[:100])
    with refused(str(path), "exemplars", kind=FileError):
        Exemplars.read(tmp_path)
