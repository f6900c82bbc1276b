"""A thread that writes while the devices draw."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Self

WAITING = 2
"""Writes that may wait. Each holds a block of draws in memory; beyond them, sampling waits."""
PATIENCE = 4.0
"""Seconds that an interrupted run gives to the writes that were asked for. A write that is cut off
does no harm; it is then done again."""


class Writer:
    """Writes in the order that was asked for, in a thread of its own.

    A write that fails is the last: those that wait are dropped, and the next request raises its
    error. As a context it waits for all writes; after an error for a few seconds at most.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "writer")
        self._asked = deque[Future[None]]()
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *failure: object) -> None:
        try:
            if kind is None:
                while self._asked:
                    self._asked.popleft().result()
            else:
                wait(self._asked, PATIENCE)
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, write: Callable[[], object]) -> None:
        """Asks for a write; waits while too many are waiting.

        Args:
            write: does it.

        Raises:
            Exception: whatever an earlier write has raised.
        """
        while self._asked and (self._asked[0].done() or len(self._asked) > WAITING):
            self._asked.popleft().result()
        self._asked.append(self._pool.submit(self._do, write))

    def _do(self, write: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            write()
        except BaseException:
            self._failed = True
            raise
