import threading
import time

import pytest

from ppl_cnn.inference.runs import writer
from ppl_cnn.inference.runs.writer import Writer


def test_writes_come_in_order_and_all_of_them():
    written = []
    with Writer() as thread:
        for number in range(20):
            thread.ask(lambda number=number: written.append(number))
    assert written == list(range(20))


def test_whoever_asks_waits_while_too_many_writes_wait():
    going, asked = threading.Event(), []

    def ask():
        with Writer() as thread:
            for number in range(writer.WAITING + 3):
                thread.ask(going.wait)
                asked.append(number)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.3)
    # One is being written.
    assert len(asked) == writer.WAITING + 1
    going.set()
    asking.join(10)
    assert len(asked) == writer.WAITING + 3


def test_after_a_failure_nothing_is_written_and_the_error_comes_through():
    written = []

    def fail():
        raise OSError("No space left")

    def run():
        with Writer() as thread:
            thread.ask(lambda: written.append("before"))
            thread.ask(fail)
            thread.ask(lambda: written.append("after"))

    with pytest.raises(OSError, match="No space"):
        run()
    assert written == ["before"]


def test_an_interrupted_run_waits_for_a_write_but_not_for_long(monkeypatch):
    monkeypatch.setattr(writer, "PATIENCE", 0.2)
    going, written = threading.Event(), []
    began = time.monotonic()

    def run():
        with Writer() as thread:
            thread.ask(lambda: written.append("short"))
            thread.ask(going.wait)
            thread.ask(lambda: written.append("dropped"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    going.set()
    assert time.monotonic() - began < 5
    assert written == ["short"]
