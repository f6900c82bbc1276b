"""The frame of a page: title, style sheet, script, and the policy that lets nothing else load."""

import base64
import hashlib
from html import escape
from pathlib import Path
from string import Template

from ppl_cnn.inference.report.frame.colours import page_variables


def frame_html(title: str, subtitle: str, content: str) -> str:
    """A whole page.

    Args:
        title: plain text.
        subtitle: plain text.
        content: HTML.
    """
    files = {kind: Path(__file__).with_name(f"page.{kind}") for kind in ("html", "css", "js")}
    text = {kind: path.read_text("utf-8") for kind, path in files.items()}
    # The browser runs this script only and loads nothing, whatever the name of a unit contains.
    digest = base64.b64encode(hashlib.sha256(text["js"].encode()).digest()).decode()
    return Template(text["html"]).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        content=content,
        style=page_variables() + text["css"],
        script=text["js"],
        digest=digest,
    )


def folding_html(heading: str, title: str, content: str, *, opened: bool = False) -> str:
    """A part of the page that the reader can open and close.

    Args:
        heading: the tag of its heading.
        title: HTML.
        content: HTML.
        opened: whether it is open at first.
    """
    return f"""<details{" open" if opened else ""}><summary><{heading}>{title}</{heading}></summary>
{content}</details>"""
