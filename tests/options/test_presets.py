from typing import get_args, get_type_hints

import pytest

from ppl_cnn.inference.sampling.methods import parse_method
from ppl_cnn.inference.sampling.starts.registry import parse_start
from ppl_cnn.options.densities import DensityOptions
from ppl_cnn.options.presets import (
    DEFAULTS,
    FROM_PRESET,
    PRESETS,
    Preset,
    default_hint,
    resolved,
)
from ppl_cnn.sample import SampleOptions


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_its_values_and_explicit_ones_override_it(name):
    assert resolved(name, {"warps": FROM_PRESET}) == PRESETS[name]
    others = resolved(name, {"warps": 7, "size": None, "target": FROM_PRESET})
    assert others == PRESETS[name]._replace(warps=7, size=None)


def test_without_a_preset_the_defaults_hold():
    assert resolved(None, {}) == DEFAULTS
    assert resolved(None, {"target": "log-prob"}) == DEFAULTS._replace(target="log-prob")


def test_the_published_preset_is_the_papers_setting():
    """The score under white noise of 10 grey levels at T = 1; a gradient for each draw."""
    published = {"target": "logit", "reference": "white:10", "temperature": 1.0}
    published["kernel"] = "split(moves=trajectories)"
    assert PRESETS["published"] == DEFAULTS._replace(**published)
    assert (DEFAULTS.warps, DEFAULTS.smooth, DEFAULTS.size, DEFAULTS.start) == (0, 0.0, None, None)


@pytest.mark.parametrize("preset", PRESETS.values())
def test_a_presets_kernel_and_start_are_texts_that_records_have(preset):
    for text, parse in ((preset.kernel, parse_method), (preset.start, parse_start)):
        assert text is None or str(parse(text)) == text


def test_the_option_offers_the_presets():
    literal, _ = get_args(get_type_hints(DensityOptions)["preset"])
    assert get_args(literal) == tuple(PRESETS)


def test_each_value_is_an_option_of_sampling():
    assert set(Preset._fields) <= set(SampleOptions.__dataclass_fields__)


def test_help_names_the_values_of_all_presets():
    assert default_hint("target") == ("(default: auto; published: logit; vivid: soft-log-prob:10)")
    assert default_hint("start", "prior") == "(default: prior; vivid: rto)"
    assert default_hint("warmup") == "(default: 200; vivid: 3)"
