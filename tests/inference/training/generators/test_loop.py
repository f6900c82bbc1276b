import json
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest

from ppl_cnn.inference.report.generator_page import generator_page
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.generators import loop
from ppl_cnn.inference.training.generators.dry_run import dry_run
from ppl_cnn.inference.training.generators.figures import Judge
from ppl_cnn.inference.training.generators.loop import train_generator
from ppl_cnn.inference.training.generators.recipe import GeneratorRecipe
from ppl_cnn.inference.training.session import Session
from ppl_cnn.models.generators.loading import load_generator

RECIPE = GeneratorRecipe(
    data="fashion-embedded",
    train="train[:300]",
    autoencoder="6steps",
    flow="4steps",
    adversarial="6steps",
    batch_size=32,
    latent=16,
    noise=16,
)
SMALL = {"hidden": (16,), "couplings": 2, "coupling_width": 16, "channels": (16, 16)}
"""Sizes of a generator whose programs compile in little time, and are of few shapes."""


@pytest.fixture(scope="module", autouse=True)
def _small_generator():
    """Its figures are of few draws as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "RefinedFlow", partial(loop.RefinedFlow, **SMALL))
        patch.setattr(loop, "_COMPARED", 500)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    judge = Judge.named(None, RECIPE.data)
    execution = Execution(checkpoint_every=100, evaluate_every=0)
    train_generator(RECIPE, out=out, judge=judge, execution=execution)
    return out


def test_a_run_leaves_a_generator_with_its_figures(whole):
    opened = load_generator(str(whole))
    images = opened(jax.random.normal(jax.random.key(0), (2, 32)))
    assert images.shape == (2, 28, 28, 1)
    description = json.loads((whole / "generator.json").read_text())
    assert description["training_images"] == 300
    figures = description["figures"]
    assert figures["frechet"] > figures["real_frechet"] > 0
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == 6 * ["autoencoder"] + 4 * ["flow"] + 6 * [
        "adversarial"
    ]
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_its_page_shows_draws_and_their_nearest_images(whole):
    text = generator_page(whole).read_text()
    assert text.count("<img") == 3
    assert "Fréchet distance" in text
    assert "Ankle boot" in text
    with np.load(whole / "exhibits.npz") as file:
        nearest, draws = file["nearest"], file["compared"]
        apart = np.sqrt(((nearest - draws.astype(float)) ** 2).mean(axis=(1, 2, 3)))
        np.testing.assert_allclose(apart.min(), file["distances"].min(), atol=1)


@pytest.mark.parametrize(
    "stop", [8, pytest.param(3, marks=pytest.mark.long), pytest.param(13, marks=pytest.mark.long)]
)
@pytest.mark.long
def test_a_stopped_run_resumes_to_the_same_bits(whole, tmp_path, monkeypatch, stop):
    out, execution = tmp_path / "run", Execution(checkpoint_every=1, evaluate_every=0)
    save = Session.save

    class StoppedError(Exception):
        pass

    def stopping(self):
        save(self)
        if self.number == stop:
            raise StoppedError

    monkeypatch.setattr(Session, "save", stopping)
    with pytest.raises(StoppedError):
        train_generator(RECIPE, out=out, execution=execution)
    monkeypatch.setattr(Session, "save", save)
    train_generator(RECIPE, out=out, execution=execution)
    assert (out / "weights.safetensors").read_bytes() == (
        whole / "weights.safetensors"
    ).read_bytes()


def test_a_finished_run_is_not_trained_again(whole):
    before = (whole / "weights.safetensors").stat().st_mtime_ns
    train_generator(RECIPE, out=whole)
    assert (whole / "weights.safetensors").stat().st_mtime_ns == before


@pytest.mark.long
def test_two_devices_train_to_the_same_weights_up_to_rounding(whole, tmp_path):
    code = f"""
import jax
jax.config.update("jax_num_cpu_devices", 2)
from functools import partial
from ppl_cnn.inference.training.execution import Execution
from ppl_cnn.inference.training.generators import loop
from ppl_cnn.inference.training.generators.loop import train_generator
from ppl_cnn.inference.training.generators.recipe import GeneratorRecipe
assert jax.device_count() == 2
loop.RefinedFlow = partial(loop.RefinedFlow, **{SMALL!r})
train_generator({RECIPE!r}, out={str(tmp_path / "two")!r}, execution=Execution(evaluate_every=0))
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    one, two = (load_generator(str(each)) for each in (whole, tmp_path / "two"))
    z = jax.random.normal(jax.random.key(1), (20, 32))
    # Adam divides by gradients' sizes, so that rounding of small ones grows; images stay alike.
    apart = np.abs(np.asarray(one(z)) - np.asarray(two(z)))
    assert apart.mean() < 1


def test_a_dry_run_tells_memory_and_work_of_each_stage():
    text = dry_run(RECIPE)
    for stage in ("autoencoder, 6 steps", "flow, 4 steps", "adversarial, 6 steps"):
        assert stage in text
    assert "multiplications per step" in text


def test_batches_larger_than_the_data_are_refused(tmp_path, refused):
    recipe = GeneratorRecipe(data="fashion-embedded", train="train[:40]")
    with refused("batch_size=64", 40):
        train_generator(recipe, out=tmp_path / "run")
