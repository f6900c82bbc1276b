import hashlib
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

import ppl_cnn
from ppl_cnn.errors import FileError, UnknownNameError
from ppl_cnn.models.networks.catalogue import NETWORKS
from ppl_cnn.models.trained import published
from ppl_cnn.models.trained.published import PUBLISHED, Published, cache_folder, fetch

CONTENT = b"weights" * 1000


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """The address of a server of a folder, and the folder."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}", folder
        httpd.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_CNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def publish(monkeypatch):
    """Makes an address that of lenet's weights."""

    def publish(url, content=CONTENT):
        checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
        monkeypatch.setitem(PUBLISHED, "lenet", Published(f"{url}/lenet.pth", checksum))

    return publish


def test_a_file_is_fetched_once_and_kept(server, cache, publish):
    url, folder = server
    (folder / "lenet.pth").write_bytes(CONTENT)
    publish(url)
    path = fetch("lenet")
    assert path == cache / "lenet.pth"
    assert path.read_bytes() == CONTENT
    (folder / "lenet.pth").unlink()
    assert fetch("lenet") == path


def test_another_file_than_the_published_is_refused_and_not_kept(server, cache, publish, refused):
    url, folder = server
    (folder / "lenet.pth").write_bytes(CONTENT[:-1])
    publish(url)
    path = cache / "lenet.pth"
    with refused(f"{url}/lenet.pth", "checksum", path, kind=FileError, path=path):
        fetch("lenet")
    assert list(cache.iterdir()) == []


def test_a_servers_refusal_says_what_to_do(server, cache, publish, refused):
    url, _ = server
    publish(url)
    path = cache / "lenet.pth"
    with refused("404", f"{url}/lenet.pth", path, kind=FileError, path=path):
        fetch("lenet")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_without_a_network_it_says_what_to_do(url, cache, publish, refused):
    publish(url)
    path = cache / "lenet.pth"
    with refused("lenet", f"{url}/lenet.pth", path, kind=FileError, path=path):
        fetch("lenet")


def test_a_file_put_there_by_hand_is_checked_and_used(cache, publish, refused):
    publish("http://127.0.0.1:1")
    cache.mkdir()
    (cache / "lenet.pth").write_bytes(CONTENT)
    assert fetch("lenet") == cache / "lenet.pth"
    (cache / "lenet.pth").write_bytes(CONTENT + b"x")
    path = cache / "lenet.pth"
    with refused(path, "http://127.0.0.1:1/lenet.pth", kind=FileError, path=path):
        fetch("lenet")
    assert (cache / "lenet.pth").read_bytes() == CONTENT + b"x"


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch, server, publish, refused):
    url, folder = server
    (folder / "lenet.pth").write_bytes(CONTENT)
    publish(url)
    (tmp_path / "file").touch()
    monkeypatch.setenv("PPL_CNN_CACHE", str(tmp_path / "file"))
    path = tmp_path / "file" / "lenet.pth"
    with refused(path, kind=FileError, path=path):
        fetch("lenet")


def test_networks_without_published_weights_are_told(refused):
    with refused("zfnet", "alexnet-torchvision", kind=UnknownNameError, name="zfnet"):
        fetch("zfnet")


def test_load_fetches_with_auto(cache, publish, server, refused):
    url, folder = server
    (folder / "lenet.pth").write_bytes(CONTENT)
    publish(url)
    with refused("lenet.pth"):
        ppl_cnn.load("lenet", weights="auto")


def test_the_table_is_of_declared_networks_and_full_checksums():
    digits = {"sha256": 64, "sha384": 96}
    assert set(PUBLISHED) <= set(NETWORKS)
    for name, file in PUBLISHED.items():
        algorithm, _, checksum = file.checksum.partition(":")
        assert re.fullmatch(f"[0-9a-f]{{{digits[algorithm]}}}", checksum), name
        # torchvision puts the first eight digits into the name.
        if "pytorch" in file.url:
            assert file.file.endswith(f"-{checksum[:8]}.pth")


def test_the_cache_is_the_users_unless_told(monkeypatch):
    monkeypatch.delenv("PPL_CNN_CACHE", raising=False)
    assert cache_folder().name == "ppl_cnn"
    assert published.cache_folder().is_absolute()
