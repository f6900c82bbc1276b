import importlib.util

import pytest

from ppl_cnn.errors import ArgumentError, InputError
from ppl_cnn.machines.described import GPUS, Machine

PLUGIN = importlib.util.find_spec("jax_plugins") is not None and bool(
    importlib.util.find_spec("jax_plugins.xla_cuda12")
)


@pytest.mark.parametrize(
    ("text", "hosts", "gpus"), [("h200", 1, 1), ("h100:8", 1, 8), ("a100:2x8", 2, 8)]
)
def test_a_text_names_hosts_and_gpus(text, hosts, gpus):
    machine = Machine.parse(text)
    assert (machine.hosts, machine.gpus) == (hosts, gpus)
    assert machine.gpu is GPUS[text[:4]]


@pytest.mark.parametrize("text", ["", "h100:", "h100:0", "h100:2x0", "v100", "h100:2x8x4", "8"])
def test_other_texts_are_refused_with_what_would_do(text, refused):
    with refused("`for`", "h100:2x8", "a100", kind=ArgumentError, argument="for"):
        Machine.parse(text)


@pytest.mark.skipif(PLUGIN, reason="JAX's CUDA plugin is installed")
def test_without_the_plugin_a_sentence_says_what_to_install(refused):
    with refused("CUDA plugin", "ppl_cnn[cuda-compile]", kind=InputError):
        Machine.parse("h200").devices()
