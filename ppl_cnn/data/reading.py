"""Reading ahead: the next batches of a data set, in order, by threads or by processes of their own.

Decoding runs in threads at the same time, but Python's lock keeps the rest of an image's work, a
fifteenth of it, to one thread of a process. So many cores need several processes.
"""

import multiprocessing
import os
import shutil
import signal
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from ppl_cnn.data.images import Images
from ppl_cnn.errors import ArgumentError, one_line
from ppl_cnn.work import usable_cores

if TYPE_CHECKING:
    import grain

THREADS = 8
"""Threads of a process of its own, and cores for each such process by default."""
WORTH = 5_000
"""Images for which it pays to start a process, which takes seconds."""
SHARED = 2**28
"""Bytes of shared memory for each process by default, through which its batches come."""
_SHARED_MEMORY = Path("/dev/shm")


class Readers(NamedTuple):
    """Who reads ahead."""

    processes: int
    """Processes of their own; with 0 the threads are this process's."""
    threads: int
    """Threads of each process. Each reads a batch at a time."""

    @classmethod
    def chosen(
        cls,
        processes: int | None,
        threads: int | None,
        *,
        varies: bool,
        images: int | None = None,
    ) -> Self:
        """The readers of a data set.

        Args:
            processes: their number; None for one for each `THREADS` cores, of photographs and from
                twice as many cores, as far as there is shared memory.
            threads: threads of each; None for one for images of a fixed size, as Python's lock
                bounds the decoding of small ones, and for as many as the cores of photographs.
            varies: whether the images vary in size, as photographs do.
            images: images to read; None for a training without an end.

        Raises:
            ArgumentError: `processes` is negative.
        """
        cores = usable_cores()
        if processes is None:
            processes = cores // THREADS if varies and cores >= 2 * THREADS else 0
            most = processes if images is None else images // WORTH
            processes = min(processes, most, _shared_memory() // SHARED)
        if processes < 0:
            raise ArgumentError(
                f"`readers={processes}` is negative. Give 0 or more.", argument="readers"
            )
        if threads is None:
            each = min(THREADS, cores // processes) if processes else cores
            threads = max(1, each) if varies else 1
        return cls(processes, threads)


class ReadAhead[Batch](Iterator[Batch]):
    """The batches of a dataset in order, the same whoever reads them.

    Args:
        batches: the dataset, whose elements are read where they are asked for.
        source: the images, to note what is damaged among them.
        readers: who reads.
    """

    def __init__(self, batches: "grain.MapDataset[Batch]", source: Images, readers: Readers):
        self._batches, self._source, self._readers = batches, source, readers
        self._number = 0
        self._open: list[Any] = []
        weakref.finalize(self, _close, self._open)  # also where Python ends
        self._open.append(self._from_here())

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            FileError: see `Images.read`.
            ArgumentError: a process that reads was killed, or could not start.
        """
        if not self._open:
            raise StopIteration
        if not self._readers.processes:
            read = next(self._open[0])
        else:
            read, damaged = self._received()
            if damaged:
                self._source.note_damage(damaged)
        self._number += 1
        batch: Batch = read
        return batch

    def get_state(self) -> dict[str, int]:
        """The place in the dataset, which JSON can hold."""
        return {"next_index": self._number}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues where another iterator stood, whatever its readers."""
        self.close()
        self._number = state["next_index"]
        self._open.append(self._from_here())

    def close(self) -> None:
        """Ends what reads ahead; there is no next batch then."""
        _close(self._open)

    def _received(self) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """A batch from a process, and what that has found damaged."""
        try:
            shared, damaged = next(self._open[0])
        except RuntimeError as error:
            raise ArgumentError(
                f"A process that reads images ended ({one_line(error)}). Give `readers=0` or more"
                " shared memory; a script that trains needs `if __name__ == '__main__':`.",
                argument="readers",
            ) from error
        # Copied, as grain frees the shared memory with its array, which JAX may go on using.
        return {name: np.array(values) for name, values in shared.items()}, damaged

    def _from_here(self) -> Any:
        import grain

        processes, threads = self._readers
        rest = self._batches.slice(slice(self._number, None))
        # The buffer counts batches, and one of ImageNet is 40 MB; grain's default of 500 is for
        # images.
        options = grain.ReadOptions(threads, threads + 1)
        if not processes:
            return iter(rest.to_iter_dataset(options))
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # grain asks for its own, which only absl's apps parse
        source = self._source
        told = rest.map(lambda batch: (batch, dict(source.damaged))).to_iter_dataset(options)
        return iter(told.mp_prefetch(grain.MultiprocessingOptions(processes), _begin))


def _close(iterators: list[Any]) -> None:
    while iterators:
        iterators.pop().close()


def _begin(number: int, count: int) -> None:
    """What a process that reads does first; grain calls it.

    Ctrl-C goes to all processes of a terminal, and the training alone decides what follows. A
    process whose training was killed ends itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _shared_memory() -> int:
    """Bytes of shared memory that are free; containers often have 64 MB."""
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else 2**40
