"""The README's and the docs' Python runs, and their links lead somewhere."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SMALLER = {
    "chains=8, draws=500": "chains=2, draws=5, warmup=5",
    '"conv5:12"': '"conv1:12"',
    '"conv2:3"': '"conv1:3"',
    "chains=8, draws=300": "chains=4, draws=10, warmup=10, rungs=2, particles=4, temperatures=4",
    "num_warmup=200, num_samples=200": "num_warmup=3, num_samples=3, progress_bar=False",
    "generative:8,discriminative:4": "discriminative:2steps",
}
"""What a page says -> what is run of it here."""


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page) and page.name != "CONTRIBUTING.md"], ids=name
)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """Block after block, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (20, 4, 4, 1)).astype(np.uint8)
    known = {"__name__": "page", "images": images}
    for block in blocks(page):
        for said, run in SMALLER.items():
            block = block.replace(said, run)
        exec(compile(block, page.name, "exec"), known)
    assert "ppl_cnn" in known


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), f"{name(page)} links to {link}"


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
