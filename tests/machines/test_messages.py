import pytest

from ppl_cnn.machines import messages
from ppl_cnn.machines.messages import Conversation, leads


def test_a_process_alone_leads_and_is_told_what_it_says():
    talk = Conversation()
    talk.meet()
    assert leads()
    assert talk.agreed([1, "a"]) == [1, "a"]
    assert talk.gathered({"b": None}) == [{"b": None}]


class Service:
    """JAX's coordination service, of one process that plays several."""

    def __init__(self):
        self.said = {}

    def key_value_set(self, key, value):
        assert key not in self.said
        self.said[key] = value

    def blocking_key_value_get(self, key, timeout_in_ms):
        if key not in self.said:
            raise messages.jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: nobody has said it")
        return self.said[key]


@pytest.fixture
def as_process(monkeypatch):
    """A function by which this process becomes another one of two."""
    service = Service()
    monkeypatch.setattr(messages, "_client", lambda: service)
    monkeypatch.setattr(messages.jax, "process_count", lambda: 2)
    return lambda index: monkeypatch.setattr(messages.jax, "process_index", lambda: index)


def test_process_0_decides(as_process, monkeypatch):
    monkeypatch.setattr(messages, "_numbers", iter([0, 1, 0, 1]))
    heard = []
    for index in (0, 1):
        as_process(index)
        talks = Conversation(), Conversation()
        heard.append([talks[0].agreed(index), talks[1].agreed(10 + index), talks[0].agreed(None)])
    assert heard == [[0, 10, None]] * 2
