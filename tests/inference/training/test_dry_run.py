import json
import subprocess
import sys
from dataclasses import replace

import pytest

from ppl_cnn.errors import InputError, MismatchError
from ppl_cnn.inference.training import dry_run as module
from ppl_cnn.inference.training.dry_run import compiled_need, dry_run
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.networks.declared import DeclaredTrainable
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.stages import Stage
from ppl_cnn.models.networks.catalogue import ALEXNET, LENET

RECIPE = Recipe.read("lenet")
NETWORK = DeclaredTrainable(LENET)


(STAGE,) = Stage.parse_all("generative:1", 0.01, "constant")


@pytest.fixture(scope="module")
def need():
    """What a step with the recipe's 64 images needs."""
    return compiled_need(NETWORK, RECIPE, STAGE, steps=93)


def test_the_need_of_a_step_is_that_of_its_layers(need):
    """LeNet's, by hand: 20 and 50 maps of 5x5 kernels, 500 and 10 dense units."""
    weights = 5 * 5 * 20 + 5 * 5 * 20 * 50 + 4 * 4 * 50 * 500 + 500 * 10
    assert need.parameters == weights + 20 + 50 + 500 + 10
    conv1 = 24 * 24 * 5 * 5 * 20
    rest = 8 * 8 * 5 * 5 * 20 * 50 + 4 * 4 * 50 * 500 + 500 * 10
    assert NETWORK.multiplications == 2 * conv1 + 3 * rest
    # What isn't in the layers, as losses, pooling and updates, is a few per cent.
    assert 1 < need.multiplications / (64 * NETWORK.multiplications) < 1.1
    # Weights and momentum of 4 bytes, and the images.
    least = 2 * 4 * need.parameters + 64 * 28 * 28
    assert least < need.arguments < least + 50_000
    # The state is updated in place: little is written elsewhere.
    assert need.outputs < 10_000
    # The maps after conv1, of which the way back needs some.
    assert 4 * 64 * 24 * 24 * 20 < need.temporaries < 40 * 4 * 64 * 24 * 24 * 20


def test_alexnets_multiplications_are_the_published_ones():
    # 724 million of the forward pass with 227x227 images, conv1's 105 million among them.
    count = DeclaredTrainable(ALEXNET).multiplications
    assert count == pytest.approx(3 * 724.4e6 - 105.4e6, rel=1e-3)


def test_a_larger_batch_needs_more(need):
    double = compiled_need(NETWORK, replace(RECIPE, batch_size=128), STAGE, steps=93)
    assert double.operations == pytest.approx(2 * need.operations, rel=0.05)
    assert double.temporaries > 1.5 * need.temporaries


@pytest.mark.long
def test_accumulation_needs_less_memory_and_a_third_more_multiplications():
    recipe = replace(RECIPE, batch_size=512)
    whole = compiled_need(NETWORK, recipe, STAGE, steps=11)
    parts = compiled_need(NETWORK, recipe, STAGE, steps=11, accumulate=8)
    assert parts.temporaries < whole.temporaries / 3
    assert 1.2 < parts.operations / whole.operations < 1.6


def test_the_text_says_it_for_the_whole_run():
    text = dry_run(RECIPE)
    assert "lenet on fashion-embedded: 6,000 images in 10 classes, 93 steps an epoch" in text
    assert "431,080 parameters, 1.6 MiB" in text
    assert "generative, 744 steps of 64 images:" in text
    assert "discriminative, 372 steps of 64 images:" in text
    assert "in all: 1,116 steps, 4.9" in text


def test_data_that_is_not_prepared_has_its_published_size(need, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "compiled_need", lambda *given, **options: need)
    recipe = replace(RECIPE, data="fashion_mnist", stages="discriminative:1")
    text = dry_run(recipe, Execution(data_dir=str(tmp_path)))
    assert "lenet on fashion_mnist: 60,000 images in 10 classes, 937 steps an epoch" in text


@pytest.mark.parametrize(
    ("changes", "facts", "kind"),
    [
        ({"network": "resnet"}, ["'resnet'"], InputError),
        ({"data": "cifar"}, ["'cifar'"], InputError),
        ({"network": "mine:factory"}, ["mine"], InputError),
        ({"switch": "ess:9"}, ["`switch=ess:9`", "8.77"], MismatchError),
        ({"batch_size": 6001}, ["`batch_size=6001`", "6000"], MismatchError),
    ],
)
def test_what_does_not_fit_is_refused(changes, facts, kind, refused):
    with refused(*facts, kind=kind):
        dry_run(replace(RECIPE, **changes))


DEVICES = """
import json, jax
jax.config.update("jax_num_cpu_devices", 4)
from ppl_cnn.inference.training.dry_run import compiled_need
from ppl_cnn.inference.training.networks.declared import DeclaredTrainable
from ppl_cnn.inference.training.recipe import Recipe
from ppl_cnn.inference.training.stages import Stage
from ppl_cnn.models.networks.catalogue import LENET
(stage,) = Stage.parse_all("generative:1", 0.01, "constant")
network = DeclaredTrainable(LENET)
print(json.dumps(compiled_need(network, Recipe.read("lenet"), stage, steps=93)))
"""


def test_devices_share_the_work_and_the_memory(need):
    done = subprocess.run(
        [sys.executable, "-c", DEVICES], capture_output=True, text=True, check=True
    )
    quarter = type(need)(*json.loads(done.stdout))
    # Norms, weight decay and update are every device's own.
    assert 0.25 <= quarter.operations / need.operations < 0.3
    assert quarter.temporaries < 0.6 * need.temporaries
    assert quarter.parameters == need.parameters


@pytest.mark.long
def test_the_papers_recipe_compiles_in_three_minutes_and_eight_gigabytes(tmp_path):
    """10 s of computing and 0.5 GB on one core, where there is nothing but CPU."""
    script = """
import resource, sys, time
from ppl_cnn.inference.training.dry_run import dry_run
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.recipe import Recipe
before = time.monotonic()
print(dry_run(Recipe.read("alexnet-imagenet"), Execution(data_dir=sys.argv[1])))
assert time.monotonic() - before < 180
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8e6  # KB
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "60,965,224 parameters" in done.stdout
    assert "generative, 225,180 steps of 256 images:" in done.stdout
    assert "discriminative, 125,100 steps of 256 images:" in done.stdout
    assert "in all: 350,280 steps" in done.stdout
