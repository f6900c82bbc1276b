import os

from ppl_cnn.work import usable_cores


def test_cores_are_those_of_this_process_on_any_system(monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 6})
        assert usable_cores() == 3
        monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert usable_cores() == os.cpu_count()
