import multiprocessing

from ppl_cnn.errors import RunFolderError
from ppl_cnn.inference.runs.lock import locked


def hold(path, held, done):
    with locked(path):
        held.set()
        done.wait(30)


def test_one_process_holds_a_folder_at_a_time(tmp_path, refused):
    path = tmp_path / "run"
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(path, held, done))
    process.start()
    assert held.wait(30)
    with refused(path, "Another run", kind=RunFolderError, path=path), locked(path):
        pass
    done.set()
    process.join()
    with locked(path):  # the file stays, the lock does not
        assert (path / ".lock").exists()


def test_a_failure_releases_the_lock(tmp_path):
    for _ in range(2):
        try:
            with locked(tmp_path):
                raise OSError("the disk is full")
        except OSError:
            pass
