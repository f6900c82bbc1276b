"""The processes, one a host, that work on one run: how they are named, join, and end together.

Free of heavy imports, for the command line's sake.
"""

import atexit
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ppl_cnn.errors import ArgumentError, InputError, one_line, with_options

_ROOT = "ppl_cnn/"
"""Where JAX's coordination service keeps what processes say of themselves."""
_EVERY = 1.0
"""Seconds between two looks at the other processes."""
_SILENT = 45.0
"""Seconds without a sign of life after which a process counts as lost; JAX itself waits 100."""
_PATIENCE = 5.0
"""Seconds that process 0, which keeps the messages, gives the others to read that it has failed."""
_BROKEN = re.compile("gloo|nccl|connection|unavailable|peer|heartbeat", re.IGNORECASE)
"""What errors of JAX say if another process is lost."""


@dataclass(frozen=True)
class Processes:
    """The processes, one a host, that work on one run together."""

    coordinator: str | None = None
    """HOST:PORT of process 0, to work in several processes, one a host; or auto, to take all
    three from the scheduler (Slurm, Open MPI, Kubernetes, cloud TPUs)."""
    process_id: int | None = None
    """Number of this process, from 0; needed with HOST:PORT."""
    num_processes: int | None = None
    """Number of processes; needed with HOST:PORT."""

    def join(self) -> None:
        """Connects this process with the others; call it before JAX is used.

        A process alone, with no field given, connects to nothing.

        Raises:
            ArgumentError: the description is incomplete, or the number is out of range.
            InputError: no scheduler or coordinator was found.
        """
        described = (self.coordinator, self.process_id, self.num_processes)
        if described == (None, None, None):
            return
        _initialize(_arguments(*described))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Connects this process with the others; if one fails within the context, all end.

        The others then say in one sentence which has failed and why, and exit with its code. A
        signal ends a process as if it were alone, and the others with it.

        Raises:
            ArgumentError: the description is incomplete, or the number is out of range.
            InputError: no scheduler or coordinator was found, or another process is lost.
        """
        if self == Processes():
            yield
            return
        import jax

        # JAX would keep SIGTERM for programs that ask at each step whether it has come.
        jax.config.update("jax_enable_preemption_service", False)
        self.join()
        watch = _Watch()
        try:
            yield
            watch.finish()
            jax.distributed.shutdown()
        except jax.errors.JaxRuntimeError as error:
            time.sleep(2 * _EVERY)  # The cause may be another's end, of which this one then hears.
            watch.leave(error)
            if not _BROKEN.search(str(error)):
                raise
            raise InputError(
                f"Another process can't be reached ({one_line(error)}). Start the same command in "
                f"all processes to resume."
            ) from None
        except BaseException as error:
            watch.leave(error)
            raise


class _Watch:
    """Tells the other processes that this one lives, and ends it when another has failed."""

    def __init__(self) -> None:
        import jax

        self._index, self._count = jax.process_index(), jax.process_count()
        self._ended = threading.Event()
        self._seen = dict.fromkeys(map(str, range(self._count)), ("", time.monotonic()))
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Waits for the others to come here too."""
        _set("end", self._index, "")
        while len(_all("end")) < self._count:
            time.sleep(0.05)
        self._ended.set()
        self._thread.join()

    def leave(self, error: BaseException) -> None:
        """Tells the others why this process ends; then Python's exit doesn't wait for them."""
        import jax

        from ppl_cnn.machines.messages import leaving

        self._ended.set()
        leaving.set()
        code = _code(error)
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            said = f"{type(error).__name__}: {error}" if code == 1 else with_options(f"{error}")
            told = {"code": code, "said": (said.splitlines() or [""])[0]}
            _set("failed", self._index, json.dumps(told))
            clock = time.monotonic()
            while self._index == 0 and time.monotonic() - clock < _PATIENCE:
                if len(_all("failed") | _all("left")) == self._count:
                    break
                time.sleep(0.05)
        # JAX's own exit would wait for all processes.
        atexit.register(_exit, code)

    def _watch(self) -> None:
        import jax

        beats = 0
        while not self._ended.wait(_EVERY):
            beats += 1
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                _set("alive", self._index, str(beats))
                for index, text in _all("failed").items():
                    self._follow(index, **json.loads(text))
                self._look_for_silent()

    def _look_for_silent(self) -> None:
        now = time.monotonic()
        for index, beat in _all("alive").items():
            if beat != self._seen[index][0]:
                self._seen[index] = beat, now
        for index, (_, seen) in self._seen.items():
            if now - seen > _SILENT and index not in _all("end"):
                self._follow(index, code=2, said=f"no sign of life for {_SILENT:.0f} seconds")

    def _follow(self, index: str, *, code: int, said: str) -> None:
        """Ends this process because another has ended."""
        if self._ended.is_set():
            return
        why = "was told to stop" if code > 128 else f"has failed ({said.rstrip('.')})"
        with contextlib.suppress(OSError):
            print(
                f"error: Process {index} of {self._count} {why}. Start the same command in all "
                f"processes to resume.",
                file=sys.stderr,
                flush=True,
            )
        _set("left", self._index, "")
        _exit(code)


def _code(error: BaseException) -> int:
    """The code with which commands exit after an error."""
    if isinstance(error, KeyboardInterrupt):
        by = signal.SIGINT if type(error) is KeyboardInterrupt else signal.SIGTERM
        return 128 + by
    broken = isinstance(error, RuntimeError) and _BROKEN.search(str(error))
    return 2 if broken or isinstance(error, InputError | OSError) else 1


def _exit(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _client() -> Any:
    from jax._src import distributed  # JAX gives its messages no public name

    return distributed.global_state.client


def _set(what: str, index: int, text: str) -> None:
    _client().key_value_set(f"{_ROOT}{what}/{index}", text, allow_overwrite=True)


def _all(what: str) -> dict[str, str]:
    """Process -> what it has said."""
    said = _client().key_value_dir_get(f"{_ROOT}{what}")
    return {key.rpartition("/")[2]: text for key, text in said}


def _initialize(given: dict[str, Any]) -> None:
    """Calls `jax.distributed.initialize`, whose failure becomes one sentence."""
    import jax

    try:
        jax.distributed.initialize(**given)
        jax.devices()
    except (ValueError, RuntimeError) as error:
        reason = re.split(r"[.!?]\s", f"{error} ")[0]
        raise InputError(
            f"The processes can't be connected ({reason}). Check `coordinator`, and that all "
            f"processes are running."
        ) from None


def _arguments(
    coordinator: str | None, process_id: int | None, num_processes: int | None
) -> dict[str, Any]:
    """What JAX is told of the processes."""
    if coordinator == "auto" and process_id is None and num_processes is None:
        return {}
    if coordinator in (None, "auto") or process_id is None or num_processes is None:
        raise ArgumentError(
            "Several processes need `coordinator=HOST:PORT`, `process_id` and `num_processes`, "
            "or `coordinator=auto` alone under a scheduler.",
            argument="coordinator",
        )
    if not 0 <= process_id < num_processes:
        raise ArgumentError(
            f"`process_id` must be from 0 to {num_processes - 1} for {num_processes} processes, "
            f"not {process_id}.",
            argument="process_id",
        )
    return {
        "coordinator_address": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
