"""Opening a generator from all that names one."""

import importlib
from collections.abc import Mapping
from pathlib import Path

from ppl_cnn.errors import FileError, UnknownNameError, unknown
from ppl_cnn.models.generators.generator import Generator
from ppl_cnn.models.generators.generator_folder import open_generator
from ppl_cnn.models.generators.onnx_generator import SUFFIX, open_onnx_generator
from ppl_cnn.numeric import in_float32

EMBEDDED = Path(__file__).parent / "embedded"
"""The folder of the generators that come with the package; each has a folder in it."""

ARCHITECTURES: Mapping[str, str] = {"dcgan64": "dcgan.open_dcgan"}
"""Name of a declared architecture -> module.function of this folder that opens a file of it."""


@in_float32
def load_generator(text: str) -> Generator:
    """Opens a generator.

    Args:
        text: what names it:

            - the name of a generator that comes with the package, such as "fashion";
            - a folder that `python -m ppl_cnn.generator` has written;
            - FILE@ARCHITECTURE, a weights file of one of `ARCHITECTURES`;
            - FILE.onnx, a generator's graph with its weights (see `open_onnx_generator`).

    Raises:
        UnknownNameError: nothing of that name is there, or the architecture is unknown.
        FileError: a file is missing or damaged.
        MismatchError: the file's tensors don't fit the architecture, or a graph is no generator.
    """
    if Path(text).suffix.lower() == SUFFIX:
        return open_onnx_generator(Path(text), name=text)
    file, at, architecture = text.rpartition("@")
    if at:
        if architecture not in ARCHITECTURES:
            raise unknown("architecture", architecture, tuple(ARCHITECTURES))
        module, _, function = ARCHITECTURES[architecture].partition(".")
        home = importlib.import_module(f"ppl_cnn.models.generators.{module}")
        generator: Generator = getattr(home, function)(Path(file), name=text)
        return generator
    known = embedded_generators()
    folder = EMBEDDED / text if text in known else Path(text)
    if (folder / "generator.json").is_file():
        return open_generator(folder, text)
    if (folder / "run.json").is_file():
        raise FileError(
            f"{folder} holds no generator.json: a run of ppl_cnn.generator that hasn't ended, or "
            f"another one. Rerun its command to resume it.",
            path=folder,
        )
    raise UnknownNameError(
        f"Unknown generator {text!r}. Give {', '.join(known) or 'a folder'}, the folder of a run "
        f"of ppl_cnn.generator, FILE@{'|'.join(ARCHITECTURES)} or FILE.onnx.",
        name=text,
        known=known,
    )


def embedded_generators() -> tuple[str, ...]:
    """The names of the generators that come with the package, sorted."""
    return tuple(sorted(path.parent.name for path in EMBEDDED.glob("*/generator.json")))
