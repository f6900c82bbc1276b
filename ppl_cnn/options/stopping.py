"""How a signal ends a command in time, also where Python is inside a library for minutes.

Python handles a signal between two of its own steps. While XLA compiles or computes, the main
thread takes none.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SAYINGS = {
    signal.SIGTERM: "\nStopped. The same command resumes the run.",
    signal.SIGINT: "\nInterrupted. The same command resumes the run.",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM. It is a KeyboardInterrupt, since libraries let that through."""


def leave(number: signal.Signals) -> NoReturn:
    """Says that a signal has ended the command, and ends it at once with 128 and the number.

    Python's own way out would wait for what the devices still compute. What a run writes is written
    aside and renamed, so that nothing is cut off.
    """
    with contextlib.suppress(OSError):  # stderr may lie on the disk that is full
        print(SAYINGS[number], file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(128 + number)


@contextlib.contextmanager
def stopping(patience: float) -> Iterator[None]:
    """Lets SIGTERM raise `Terminated` in the main thread; the next one kills.

    Where the block hasn't ended in time after SIGTERM or Ctrl-C, the process ends all the same.

    Args:
        patience: the time that it has, in seconds.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    ended = threading.Event()
    heard, told = socket.socketpair()
    told.setblocking(False)
    waking = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        with heard:
            while number := heard.recv(1):
                if number[0] in SAYINGS and not ended.wait(patience):
                    leave(signal.Signals(number[0]))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(waking)
        told.close()
        watcher.join()
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


# A child's signals are not its parent's.
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
