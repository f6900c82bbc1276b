"""The page of a trained generator: draws, nearest training images, ways between draws, figures."""

import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ppl_cnn.errors import FileError
from ppl_cnn.files import read_arrays, write_aside
from ppl_cnn.inference.report.frame.frame import frame_html
from ppl_cnn.inference.report.pictures.encoding import image_tag

_DRAW = 56
"""Screen pixels of a draw's longer side."""
_COLUMNS = 20
_FIGURES = (
    ("frechet", "real_frechet", "Fréchet distance", ".2f", "smaller is more alike"),
    ("precision", "real_precision", "Precision", ".2f", "share of draws near real images"),
    ("recall", "real_recall", "Recall", ".2f", "share of real images near draws"),
)


def generator_page(folder: str | Path) -> Path:
    """Writes the page of a run of `python -m ppl_cnn.generator`, `generator.html`.

    Args:
        folder: the run's, with `generator.json` and `exhibits.npz`.

    Returns:
        The page's path.

    Raises:
        FileError: one of the two files is missing or damaged.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / "generator.json").read_text("utf-8"))
        exhibits = read_arrays(folder / "exhibits.npz")
    except (OSError, ValueError) as error:
        raise FileError(
            f"{folder} holds no finished generator ({error}). Give the folder of a run of "
            f"ppl_cnn.generator.",
            path=folder,
        ) from None
    page = _page(description, exhibits)
    write_aside(folder / "generator.html", page.encode(errors="backslashreplace"))
    return folder / "generator.html"


def _page(description: dict[str, Any], exhibits: dict[str, np.ndarray]) -> str:
    shape = "×".join(map(str, description["sizes"]["image_shape"][:2]))
    subtitle = f"{description['training_images']:,} images of {description['data']}, {shape}"
    content = f"""<section aria-label="Draws">
{_sheet(exhibits["draws"], _COLUMNS, "Draws of the generator")}
<p class="note">Draws x = G(z), z ~ N(0, I), none left out.</p>
</section>
{_figures(description.get("figures"), description.get("judge", ""))}
{_classes(description.get("classes"), description.get("judge", ""))}
{_memory(exhibits)}
<section><h2>From one draw to another</h2>
{
        _sheet(
            exhibits["ways"].reshape(-1, *exhibits["ways"].shape[2:]),
            exhibits["ways"].shape[1],
            "Images along great circles",
        )
    }
<p class="note">Each row is a great circle between two z. Sudden changes would show a latent space
that is torn.</p></section>
<section><h2>The run</h2>
<p><code>{escape(description["command"])}</code></p>
<p class="note">{escape(", ".join(f"{k} {v}" for k, v in description["versions"].items()))}</p>
</section>"""
    return frame_html(f"Generator of {description['data']}", subtitle, content)


def _sheet(images: np.ndarray, columns: int, alt: str) -> str:
    """Images side by side in one picture; a last row that isn't full is left out."""
    rows = len(images) // columns
    grid = images[: rows * columns].reshape(rows, columns, *images.shape[1:])
    joined = grid.transpose(0, 2, 1, 3, 4).reshape(
        rows * images.shape[1], columns * images.shape[2], images.shape[3]
    )
    side = _DRAW * max(rows, columns)
    return f'<div class="scroll">{image_tag(joined, alt, side)}</div>'


def _figures(figures: dict[str, float] | None, judge: str) -> str:
    if not figures:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row">{name}</th><td>{figures[key]:{form}}</td>'
        f"<td>{figures[real]:{form}}</td><td>{said}</td></tr>"
        for key, real, name, form, said in _FIGURES
    )
    return f"""<section><h2>Figures</h2>
<div class="scroll"><table class="data"><thead><tr><th></th><th>draws and real images</th>
<th>real images, half against half</th><th></th></tr></thead><tbody>
{rows}
</tbody></table></div>
<p class="note">In the features of {escape(judge)}, which was trained by labels.</p></section>
"""


def _classes(classes: dict[str, Any] | None, judge: str) -> str:
    """Whether draws have the classes of the images, as the judge sees them."""
    if not classes:
        return ""
    columns = ("share", "real_share", "log_z", "log_z_error", "real_log_z", "real_log_z_error")
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{100 * share:.1f} %</td>'
        f"<td>{100 * real:.1f} %</td><td>{z:.3f} ± {error:.3f}</td>"
        f"<td>{real_z:.3f} ± {real_error:.3f}</td></tr>"
        for name, share, real, z, error, real_z, real_error in zip(
            classes["classes"], *(classes[column] for column in columns), strict=True
        )
    )
    apart = np.abs(np.subtract(classes["log_z"], classes["real_log_z"])).mean()
    return f"""<section><h2>Classes</h2>
<div class="scroll"><table class="data"><thead><tr><th></th><th>share of draws</th>
<th>share of images</th><th>log Z, draws</th><th>log Z, images</th></tr></thead><tbody>
{rows}
</tbody></table></div>
<p class="note">{escape(judge)} names that share so. Z = E exp(f) normalises the class's density at
T = 1, f = {escape(classes["target"])}; ± is one standard error. Under draws and under images log Z
differs by {apart:.3f} on average.</p></section>
"""


def _memory(exhibits: dict[str, np.ndarray]) -> str:
    """Whether training images were learned by heart."""
    compared, nearest = exhibits["compared"], exhibits["nearest"]
    both = np.concatenate([compared, nearest])
    said = f"Half of the draws lie within {np.median(exhibits['distances']):.1f} grey levels (rms) "
    said += "of a training image"
    if len(exhibits["real_distances"]):
        real = np.median(exhibits["real_distances"])
        said += f"; of images that weren't trained on, half lie within {real:.1f}"
    return f"""<section><h2>Nearest training images</h2>
{_sheet(both, len(compared), "Draws above their nearest training images")}
<p class="note">Above, the draws that come closest to a training image; below, that image. {said}.
Draws much closer than that would have been learned by heart.</p></section>
"""
