from ppl_cnn.files import write_aside


def test_writing_aside_replaces_a_file_and_leaves_no_partial_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write_aside(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
