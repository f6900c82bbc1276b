"""The page in a browser: Debian's Chromium without a window, driven by Selenium."""

import base64
import io
import json
import shutil
import time
from functools import partial

import numpy as np
import pytest
import zarr
from PIL import Image

from ppl_cnn.inference.report.page import report
from ppl_cnn.inference.runs.record import unit_folder

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium and chromedriver on PATH; Debian's package chromium-driver has both",
)
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars"),
)
STEIN = np.zeros((12, 10, 3), np.float32)
STEIN[3:6, 2:5] = [8.0, 0.0, -8.0]
UNITS = ["conv5:12", "conv5:3@mean", "class:<b>jack-o'-lantern", "conv5:40@0,4"]


def noise(chains, draws, shape=(5, 4, 1)):
    return 10 * np.random.default_rng(0).normal(size=(chains, draws, *shape)).astype(np.float32)


@pytest.fixture(scope="module")
def single(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("single")
    write_run(folder, noise(5, 60, STEIN.shape) + STEIN, STEIN, {"reference": "white:10"})
    return report(folder)


@pytest.fixture(scope="module")
def several(tmp_path_factory, write_run):
    """Units that are sound, without a Stein mean, too young, and not begun."""
    folder = tmp_path_factory.mktemp("several")
    parts = [folder / unit_folder(unit) for unit in UNITS]
    write_run(parts[0], noise(4, 40, STEIN.shape), STEIN, {"unit": UNITS[0]})
    write_run(parts[1], noise(4, 40), 0.0, {"unit": UNITS[1], "reference": "uniform"})
    without_stein(parts[1])
    write_run(parts[2], noise(4, 3), 0.0, {"unit": UNITS[2]})
    config = {"kind": "sampling", "model": "alexnet-fashion", "units": UNITS}
    (folder / "run.json").write_text(
        json.dumps({"config": config, "command": "python -m ppl_cnn.sample"})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppl_cnn.inference.report.several._PLOTTED", 1)
        return report(folder)


def without_stein(folder):
    """Leaves the store as a reference leaves it that has no Stein mean."""
    shutil.rmtree(folder / "draws.zarr" / "stein")
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(folder / "draws.zarr")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def show(browser):
    """Opens a page as a window of some width and colour scheme shows it."""

    def opened(path, width=1440, scheme="light", scripts=True):
        command = browser.execute_cdp_cmd
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        command("Emulation.setDeviceMetricsOverride", size)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        command("Emulation.setEmulatedMedia", {"features": features})
        command("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        browser.get_log("browser"), browser.get_log("performance")
        browser.get("about:blank")
        browser.get(path.as_uri())
        if scripts:  # Beside other work, a page may come after the call that asks for it.
            state = "return [location.protocol, document.readyState]"
            wait(lambda: browser.execute_script(state) == ["file:", "complete"])
        return browser

    yield opened
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def wait(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it didn't happen within a minute"
        time.sleep(0.02)


def painted(browser, state, viewer=0):
    script = "return document.querySelectorAll('.viewer')[arguments[0]].dataset.painted"
    wait(lambda: browser.execute_script(script, viewer) == state)


def pixels(browser, chain=0):
    """What a chain's canvas shows."""
    script = "return document.querySelectorAll('.tiles canvas')[arguments[0]].toDataURL()"
    content = base64.b64decode(browser.execute_script(script, chain).partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def focus(browser, selector):
    browser.execute_script("document.querySelector(arguments[0]).focus()", selector)


def press(browser, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


# Every page, at every width


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        *((390, "light"), (1440, "dark")),
        *(pytest.param(*each, marks=pytest.mark.long) for each in ((390, "dark"), (1440, "light"))),
    ],
)
@pytest.mark.parametrize("kind", ["single", pytest.param("several", marks=pytest.mark.long)])
def test_it_opens_without_errors_requests_or_overlaps(request, show, kind, width, scheme):
    browser = show(request.getfixturevalue(kind), width, scheme)
    browser.execute_script("document.querySelector('.viewer').scrollIntoView()")
    painted(browser, "stein 31")
    assert browser.get_log("browser") == []
    assert outside_requests(browser) == []
    for opened in (False, True):
        browser.execute_script(OPEN, opened)
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
        assert browser.execute_script(OVERLAPS) == []
        assert browser.execute_script(TOO_WIDE) == []


def test_an_overlap_would_be_found(single, show):
    browser = show(single, 390)
    assert browser.execute_script(OVERLAPS) == []
    browser.execute_script("document.querySelector('.verdict').style.marginTop = '-9rem'")
    assert browser.execute_script(OVERLAPS) != []
    browser.execute_script("document.querySelector('h1').style.width = '30rem'")
    assert browser.execute_script(TOO_WIDE) == ["H1."]


def outside_requests(browser):
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"] for e in entries if e["method"] == "Network.requestWillBeSent"]
    addresses = [params["request"]["url"] for params in sent]
    assert any(address.startswith("file:") for address in addresses)
    return [a for a in addresses if not a.startswith(("file:", "data:", "about:"))]


OPEN = "document.querySelectorAll('details').forEach(part => part.open = arguments[0])"
OVERLAPS = """
const found = [];
const shown = e => e.checkVisibility() && !['SCRIPT', 'STYLE'].includes(e.tagName);
for (const parent of document.querySelectorAll('body, body *')) {
  // The radio buttons lie invisibly over their labels' text; options and marks lie on purpose.
  if (parent.closest('.switch label, .bar') || parent.closest('svg')) continue;
  const children = [...parent.children].filter(shown).map(e => [e, e.getBoundingClientRect()]);
  for (let i = 0; i < children.length; i++) for (let j = i + 1; j < children.length; j++) {
    const [a, p] = children[i], [b, q] = children[j];
    const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    const inline = e => getComputedStyle(e).display === 'inline';
    if (wide > 1 && high > 1 && !inline(a) && !inline(b))
      found.push(`${a.tagName}.${a.className} on ${b.tagName}.${b.className}`);
  }
}
return found;
"""
TOO_WIDE = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll('body *')]
  .filter(e => e.checkVisibility() && !e.closest('.scroll > *, pre > *, .switch label'))
  .filter(e => e.getBoundingClientRect().right > width + 1 || e.getBoundingClientRect().left < -1)
  .map(e => `${e.tagName}.${e.className}`);
"""


# The viewer


def test_the_slider_changes_the_picture_by_keyboard(single, show):
    from selenium.webdriver.common.keys import Keys

    browser = show(single)
    painted(browser, "stein 31")
    browser.find_element("css selector", "input[value=draw]").click()
    painted(browser, "draw 31")
    last = pixels(browser)
    assert output(browser) == "draw 59 of 60"
    focus(browser, "input[type=range]")
    press(browser, Keys.ARROW_LEFT)
    painted(browser, "draw 30")
    assert (pixels(browser) != last).mean() > 0.5
    press(browser, Keys.HOME)
    painted(browser, "draw 0")
    assert output(browser) == "draw 0 of 60"
    slider = browser.find_element("css selector", "input[type=range]")
    assert slider.get_attribute("aria-valuetext") == "draw 0 of 60"
    press(browser, Keys.END)
    painted(browser, "draw 31")
    np.testing.assert_array_equal(pixels(browser), last)


def output(browser):
    return browser.find_element("css selector", "output").text


def test_every_chain_has_its_own_images(single, show):
    browser = show(single)
    painted(browser, "stein 31")
    browser.find_element("css selector", "input[value=draw]").click()
    painted(browser, "draw 31")
    image = noise(5, 60, STEIN.shape) + STEIN
    for chain in range(5):
        shown = pixels(browser, chain)
        expected = np.clip(image[chain, -1] / scale(browser), -1, 1) * 127.5 + 127.5
        assert np.abs(shown - expected).max() <= 0.51
    names = [c.accessible_name for c in browser.find_elements("css selector", ".tiles canvas")]
    assert names == [f"Draw of chain {chain}: draw 59 of 60" for chain in range(5)]


def scale(browser):
    text = browser.find_element("css selector", ".scale").text
    return float(text.partition("±")[2].split()[0])


def test_the_switch_changes_the_picture_by_keyboard(single, show):
    from selenium.webdriver.common.keys import Keys

    browser = show(single)
    painted(browser, "stein 31")
    stein = pixels(browser)
    # White in the third channel, black in the first: 8 is all that this Stein mean has.
    assert stein[4, 3].tolist() == [255, 128, 0]
    focus(browser, "input[value=stein]")
    press(browser, Keys.ARROW_RIGHT)
    painted(browser, "mean 31")
    mean = pixels(browser)
    press(browser, Keys.ARROW_RIGHT)
    painted(browser, "draw 31")
    assert (mean != stein).mean() > 0.5
    assert (pixels(browser) != mean).mean() > 0.5


def test_playing_goes_to_the_end(single, show):
    browser = show(single)
    painted(browser, "stein 31")
    slider = browser.find_element("css selector", "input[type=range]")
    browser.execute_script(
        "arguments[0].value = 29; arguments[0].dispatchEvent(new Event('input'))", slider
    )
    painted(browser, "stein 29")
    button = browser.find_element("css selector", ".play")
    button.click()
    assert button.text == "Pause"
    painted(browser, "stein 31")
    wait(lambda: button.text == "Play")


def test_zooming_enlarges_squares_and_scrolls_inside(single, show):
    browser = show(single, 390)
    painted(browser, "stein 31")
    canvas = browser.find_element("css selector", ".tiles canvas")
    before = canvas.size["width"]
    focus(browser, ".stage")
    press(browser, "+", "+")
    assert canvas.size["width"] == pytest.approx(4 * before, abs=1)
    assert canvas.value_of_css_property("image-rendering") == "pixelated"
    assert (
        browser.find_element("css selector", "input[name^=zoom]:checked").get_attribute("value")
        == "4"
    )
    stage = browser.find_element("css selector", ".stage")
    assert int(stage.get_property("scrollWidth")) > int(stage.get_property("clientWidth"))
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    press(browser, "-", "-")
    assert canvas.size["width"] == before


def test_without_scripts_the_means_and_draws_show(single, show):
    browser = show(single, 390, scripts=False)
    images = browser.find_elements("css selector", ".static img")
    assert [image.get_attribute("alt") for image in images] == [
        *("Draw of each chain", "Running mean of each chain", "Stein mean of each chain")
    ]
    assert all(image.is_displayed() and image.size["width"] > 0 for image in images)
    assert not browser.find_element("css selector", ".controls").is_displayed()


# Several units


def test_a_missing_stein_mean_is_disabled_and_says_why(several, show):
    browser = show(several)
    viewers = browser.find_elements("css selector", ".viewer")
    assert len(viewers) == 2
    option = viewers[1].find_element("css selector", "input[value=stein]")
    assert not option.is_enabled()
    why = browser.find_element("id", option.get_attribute("aria-describedby"))
    assert why.text == "The reference uniform has no Stein mean."
    assert viewers[0].find_element("css selector", "input[value=stein]").is_enabled()


def test_thumbnails_lead_to_their_units_by_keyboard(several, show):
    from selenium.webdriver.common.keys import Keys

    browser = show(several)
    links = browser.find_elements("css selector", ".cards a")
    states = [link.find_element("css selector", ".badge").text for link in links]
    assert states[2:] == ["– Nothing to show"] * 2
    assert all(state[0] in "✓△✕" for state in states[:2])
    for unit in UNITS:
        focus(browser, "h1")
        browser.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
        for _ in range(UNITS.index(unit) + 1):
            press(browser, Keys.TAB)
        press(browser, Keys.ENTER)
        wait(lambda: browser.execute_script("return document.activeElement.className") == "unit")
        section = browser.switch_to.active_element
        assert section.find_element("css selector", "h2").text == unit
        wait(partial(is_in_view, browser, section))
        # The next stop is in this unit's section, where all units are one key away.
        press(browser, Keys.TAB)
        assert browser.switch_to.active_element.text == "All units"
        press(browser, Keys.ENTER)
        wait(lambda: browser.execute_script("return document.activeElement.id") == "units")


def is_in_view(browser, element):
    script = "return arguments[0].getBoundingClientRect().top"
    return -5 < browser.execute_script(script, element) < 900


def test_units_that_cannot_be_shown_say_why_in_a_sentence(several, show):
    browser = show(several)
    sentences = [part.text for part in browser.find_elements("css selector", "p.missing")]
    assert len(sentences) == 2
    assert "3 draws" in sentences[0]
    assert "not been sampled yet" in sentences[1]


# An atlas


@pytest.fixture
def atlas(tmp_path, write_run, monkeypatch):
    """An atlas of three units, of which two are shown at once."""
    monkeypatch.setattr("ppl_cnn.inference.report.page.FEWEST", 3)
    monkeypatch.setattr("ppl_cnn.inference.report.atlas._AT_ONCE", 2)
    units = [f"conv5:{channel}" for channel in range(3)]
    for channel, unit in enumerate(units):
        response = np.random.default_rng(channel).normal(channel, size=(2, 8)).astype(np.float32)
        write_run(tmp_path / unit_folder(unit), noise(2, 8), 0.0, {"unit": unit}, response=response)
    config = {"kind": "sampling", "model": "alexnet-fashion", "units": units}
    (tmp_path / "run.json").write_text(json.dumps({"config": config}))
    return report(tmp_path)


@pytest.mark.long
def test_an_atlas_turns_its_pages_and_keeps_them(atlas, show):
    browser = show(atlas, 390, "dark")

    def cards():
        shown = browser.find_elements("css selector", ".cards > li:not([hidden]) strong")
        return [each.text for each in shown]

    assert cards() == ["conv5:0", "conv5:1"]
    previous, following = browser.find_elements("css selector", ".folio button")
    assert not previous.is_enabled()
    following.click()
    assert cards() == ["conv5:2"]
    assert not following.is_enabled()
    order = browser.find_element("css selector", "select[name=order]")
    order.send_keys("largest")
    assert cards() == ["conv5:2", "conv5:1"]
    browser.find_element("css selector", ".cards a").click()
    wait(lambda: browser.title.startswith("conv5:2"))
    browser.back()
    wait(lambda: browser.title.startswith("3 units"))
    assert cards() == ["conv5:2", "conv5:1"]
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    assert browser.get_log("browser") == []
    browser = show(atlas, scripts=False)
    assert len(browser.find_elements("css selector", ".cards > li")) == 3
    assert not browser.find_element("css selector", ".folio").is_displayed()
