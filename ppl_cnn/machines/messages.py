"""What the processes of one run tell each other beside the devices: decisions and small results.

The messages go through JAX's coordination service and not through the devices, so that they don't
wait for what those compute.
"""

import itertools
import json
import threading
from typing import Any

import jax
from jax._src import distributed  # JAX gives its messages no public name

from ppl_cnn.errors import InputError

_WAIT_MS = 500
"""How long one look for a message takes at most; between two, signals come through."""
_numbers = itertools.count()
leaving = threading.Event()
"""Set when this process ends because something has failed: then no thread waits for messages."""


def leads() -> bool:
    """Whether this is process 0, which prints, and writes what is written once."""
    return jax.process_index() == 0


class Conversation:
    """Messages in an order that all processes keep. A process alone is told what it says.

    All processes make their conversations in one order, in their main threads; each of them may
    then be used in another thread.
    """

    def __init__(self) -> None:
        self._name = f"ppl_cnn/conversation/{next(_numbers)}"
        self._said = itertools.count()

    def gathered(self, value: Any) -> list[Any]:
        """What all processes say here, in their order; it waits for the last of them.

        Args:
            value: what this one says, as JSON.
        """
        if jax.process_count() == 1:
            return [value]
        key = f"{self._name}/{next(self._said)}"
        _say(f"{key}/{jax.process_index()}", value)
        return [_heard(f"{key}/{index}") for index in range(jax.process_count())]

    def agreed[T](self, value: T) -> T:
        """What process 0 says here; it waits for no other.

        Args:
            value: as JSON.
        """
        if jax.process_count() == 1:
            return value
        key = f"{self._name}/{next(self._said)}"
        if leads():
            _say(key, value)
            return value
        heard: T = _heard(key)
        return heard

    def meet(self) -> None:
        """Waits until all processes are here."""
        self.gathered(None)


def _say(key: str, value: Any) -> None:
    _client().key_value_set(key, json.dumps(value))


def _heard(key: str) -> Any:
    while not leaving.is_set():
        try:
            return json.loads(_client().blocking_key_value_get(key, _WAIT_MS))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
    raise InputError("This process ends, and waits for no other. See what it has said.")


def _client() -> Any:
    client = distributed.global_state.client
    if client is None:
        raise InputError("The processes are no longer connected. Start the command again.")
    return client
