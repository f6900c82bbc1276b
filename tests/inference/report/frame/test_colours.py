import re
from pathlib import Path

import matplotlib

from ppl_cnn.inference.report.frame import colours

CSS = Path(colours.__file__).with_name("page.css").read_text()


def test_every_colour_that_the_style_sheet_uses_has_a_value():
    used = set(re.findall(r"var\(--(\w+)", CSS))
    local = set(re.findall(r"--(\w+):", CSS)) | {"tile"}  # the viewer's own, set where it is used
    assert used - local == set(colours.PAGE_LIGHT)
    assert set(colours.PAGE_DARK) < set(colours.PAGE_LIGHT)
    assert "#" not in re.sub(r"/\*.*?\*/", "", CSS), "a colour of the page belongs in colours.py"


def test_plots_and_their_legend_have_the_same_colours():
    with matplotlib.rc_context(colours.plot_style()):
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    assert cycle == [colours.of_chain(chain) for chain in range(len(cycle))]
    assert colours.of_chain(len(cycle)) == cycle[0]
