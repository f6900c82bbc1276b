"""What the tests of the report share."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

VOID = {"meta", "link", "img", "input", "hr", "br"}


class Page(HTMLParser):
    """The tags of a page, with their attributes, and its text.

    Every element must be closed, in the order in which they were opened.
    """

    def __init__(self, source):
        super().__init__()
        self.tags, self.text, self.source = [], "", source
        self.scripts, self.viewers = [], []
        self.open = []
        self.feed(source)
        self.close()
        assert self.open == [], "these elements are not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self.tags and self.tags[-1] == ("script", {}) and self.cdata_elem:
            self.scripts.append(data)
        elif self.tags and self.tags[-1][0] == "script" and self.cdata_elem:
            self.viewers.append(json.loads(data))
        else:
            self.text += data

    @property
    def missing(self):
        """Why units can't be shown, without tags."""
        found = re.findall(r'<p class="missing">(.*?)</p>', self.source, re.DOTALL)
        return [re.sub(r"<.*?>", "", reason) for reason in found]

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def image(self, alt):
        (attrs,) = [attrs for attrs in self.all("img") if attrs["alt"] == alt]
        content = base64.b64decode(attrs["src"].partition("base64,")[2])
        return np.asarray(Image.open(io.BytesIO(content)))


@pytest.fixture(scope="session")
def parsed():
    """A function of HTML to its tags and text; it fails if an element is not closed in order."""
    return Page


@pytest.fixture(scope="session")
def noise():
    """A function of chains, draws and shape to images of white noise of deviation 10."""

    def noise(chains, draws, shape=(5, 4, 1)):
        normal = np.random.default_rng(0).normal(size=(chains, draws, *shape))
        return 10 * normal.astype(np.float32)

    return noise
