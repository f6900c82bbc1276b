"""The page's section on the same unit under the published setting."""

from html import escape
from pathlib import Path

from ppl_cnn.errors import InputError
from ppl_cnn.inference.diagnostics.diagnose import Diagnosis, diagnose
from ppl_cnn.inference.report.parts.facts import advice_html, density_text
from ppl_cnn.inference.report.pictures.album import Album


def published_html(folder: Path, heading: str) -> str:
    """The section: Stein mean, mean, a draw and the verdict; empty if there is no such run.

    It writes the run's `images/`.

    Args:
        folder: the run's, or where it would lie.
        heading: the tag of its heading.
    """
    if not (folder / "run.json").exists():
        return ""
    try:
        content = _content(diagnose(folder, maps=False), folder)
    except InputError as error:
        content = f'<p class="missing">{escape(str(error))}</p>'
    return f"""<section>
<{heading}>The published setting</{heading}>
{content}
</section>
"""


def _content(diagnosis: Diagnosis, folder: Path) -> str:
    album = Album.of(diagnosis)
    album.write(folder / "images")
    verdict = diagnosis.verdict
    sentence = advice_html(verdict.sentence, diagnosis.record)
    return f"""<p>The same unit under white noise, as in the paper.
{escape(density_text(diagnosis.config))}</p>
{album.html(diagnosis.stein_check)}
<p><strong>{escape(verdict.headline)}.</strong> {sentence}</p>
<p class="note">The run lies in <code>{escape(str(folder))}</code>.</p>"""
