"""The page of one unit."""

import shlex
from html import escape

from ppl_cnn.inference.report.frame.frame import frame_html
from ppl_cnn.inference.report.section import Section


def single_page(section: Section, model: str, *, plotted: bool = True, beside: str = "") -> str:
    """The page, as HTML that loads nothing.

    Args:
        section: the unit's.
        model: the network's name; empty if it is unknown.
        plotted: whether the page has ArviZ's plots, which take some 10 seconds.
        beside: HTML: links to other units' pages, if there are any.
    """
    title = f"{section.title} of {model}" if model else section.title
    content = f"""{beside}<section aria-label="Images">
{section.images}
</section>
{section.judgement}
{section.comparison}
{section.tilting}
{section.mixing}
{section.maps}
{section.plots("h2", opened=True) if plotted else _unplotted(section)}
{section.summary}
<section>
<h2>The run</h2>
{section.facts}
</section>
{section.published}"""
    return frame_html(title, section.subtitle, content)


def _unplotted(section: Section) -> str:
    if section.verdict.weights is not None:
        return ""
    command = shlex.join(["python", "-m", "ppl_cnn.report", str(section.folder)])
    return f"""<p class="note">The pages of so many units have no plots.
<code>{escape(command)}</code> makes this page with ArviZ's plots.</p>"""
