import numpy as np

from ppl_cnn.inference.diagnostics.pixel_maps import Maps
from ppl_cnn.inference.report.parts.heatmaps import maps_html


def test_a_map_tells_its_numbers():
    values = np.arange(1, 5).reshape(2, 2, 1) / 2
    source = maps_html(Maps(values, values + np.nan), "h2")
    assert "0.500 to 2.000, median 1.000" in source
    assert "50.00% of 4 values miss it" in source
    assert 'left:1.0%"' in source


def test_undefined_values_and_stuck_chains_are_said():
    rhat = np.asarray([[1.0, np.inf], [np.nan, 1.2]])[..., None]
    source = maps_html(Maps(rhat, np.full((2, 2, 1), np.nan)), "h2")
    assert "1.000 to ∞, median 1.200" in source
    assert "undefined for 1 more" in source
    assert "≥ 2.000" in source
    assert "Bulk ESS" not in source
    assert maps_html(Maps(rhat + np.nan, rhat + np.nan), "h2") == ""


def test_the_scale_of_ess_reaches_twice_what_is_good():
    source = maps_html(Maps(np.full((2, 2, 3), np.nan), np.full((2, 2, 3), 100.0)), "h2")
    assert "<span>0</span><span>800</span>" in source
    assert 'left:50.0%"' in source
    assert "worst channel" in source
    assert "A single chain has no R-hat" in source
