"""Exemplars beside a unit's draws: the images of a set to which the unit responds most."""

import io
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from ppl_cnn.errors import FileError
from ppl_cnn.files import read_arrays, write_aside

type Scored = Literal["anywhere", "there"]
"""At which places of its map a unit was scored: at all that see as much as its centre, or at its
own alone."""

FILE = "exemplars.npz"
_VERSION = 1


class Exemplars(NamedTuple):
    """The images of a set to which a unit responds most, the strongest first."""

    images: UInt8[np.ndarray, "exemplar row col channel"]
    """Grey or RGB levels of what the unit sees of each."""
    responses: Float32[np.ndarray, " exemplar"]
    """The unit's response to each, before division by T."""
    names: tuple[str, ...]
    """What each is called: a file below the folder, or a number in the data set."""
    labels: tuple[str, ...]
    """The class of each; empty where it has none."""
    source: str
    """The folder or the data set."""
    searched: int
    """How many images were scored."""
    scored: Scored
    """Where in the image the unit was scored."""

    def save(self, folder: Path) -> None:
        """Writes them beside the unit's draws, aside and then renamed.

        Args:
            folder: the unit's.
        """
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            version=np.asarray(_VERSION),
            images=self.images,
            responses=self.responses,
            names=np.asarray(self.names),
            labels=np.asarray(self.labels),
            about=np.asarray([self.source, str(self.searched), self.scored]),
        )
        write_aside(folder / FILE, stream.getvalue())

    @classmethod
    def read(cls, folder: Path) -> "Exemplars | None":
        """Those that lie beside a unit's draws; None if there are none.

        Args:
            folder: the unit's.

        Raises:
            FileError: the file is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            found = read_arrays(path)
            source, searched, scored = map(str, found["about"])
            return cls(
                found["images"],
                found["responses"],
                tuple(map(str, found["names"])),
                tuple(map(str, found["labels"])),
                source,
                int(searched),
                "anywhere" if scored == "anywhere" else "there",
            )
        except OSError as error:
            raise FileError(f"{path} can't be read ({error.strerror}).", path=path) from None
        except (ValueError, KeyError):
            raise FileError(
                f"{path} is damaged. Delete it, or give `exemplars` to make it again.", path=path
            ) from None
