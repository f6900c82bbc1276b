"""The walk over a folder of images: which files are images, and what was left out and why.

Class folders (`folder:PATH`) and the photographs of a fit are listed by this walk:

- Hidden files and folders are left out at every depth, and those that systems leave behind.
- Links are followed. Each folder is entered once and each file listed once, wherever links lead: at
  its own place if it has one below the folder.
- A file is an image by its suffix, or else by its content.
- A folder that can't be read is an error.
"""

import os
import stat
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ppl_cnn.data.image_files import SUFFIXES, is_image
from ppl_cnn.errors import FileError, shown

SYSTEM_NAMES = frozenset(
    {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
"""Folders that systems and programs leave behind."""
EXAMPLES = 3
"""Files that a line of an account names."""


class LeftOut(NamedTuple):
    """A file or folder that was not taken."""

    path: str
    """Its path below the folder."""
    why: str
    """The reason, in words that follow a number: "hidden"."""


class Found(NamedTuple):
    """An image file."""

    path: str
    """Its path below the folder, with slashes."""
    size: int
    """Its length in bytes."""
    modified: int
    """When it was modified, in nanoseconds."""


@dataclass(frozen=True)
class Listing:
    """What lies below a folder."""

    files: tuple[Found, ...]
    """The images, sorted by path."""
    folders: tuple[str, ...]
    """All folders that are not hidden, by path below the folder, sorted."""
    left_out: tuple[LeftOut, ...]
    """What was not taken."""


def account(left_out: tuple[LeftOut, ...]) -> list[str]:
    """Lines that say how much was left out, why, and which files for example.

    Examples:
        >>> account((LeftOut("a/.x", "hidden"), LeftOut("b/.y", "hidden")))
        ['left out 2 hidden: a/.x, b/.y']
    """
    lines = []
    for why, count in Counter(each.why for each in left_out).most_common():
        named = [shown(each.path) for each in left_out if each.why == why][:EXAMPLES]
        more = ", ..." if count > len(named) else ""
        lines.append(f"left out {count:,} {why}: {', '.join(named)}{more}")
    return lines


def list_images(folder: Path) -> Listing:
    """Lists the images below a folder; only files without a usual suffix are opened.

    Raises:
        FileError: the folder, or one below it, is missing or can't be read.
    """
    walk = _Walk(folder)
    walk.run()
    files = sorted(walk.distinct())
    return Listing(tuple(files), tuple(sorted(walk.folders)), tuple(walk.left_out))


class _Seen(NamedTuple):
    """A regular file on the way."""

    linked: bool
    """Whether a link below the folder led there."""
    path: str
    about: os.stat_result


@dataclass
class _Walk:
    """A walk under way: folders behind links wait until all others have been seen."""

    root: Path
    folders: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    _seen: list[_Seen] = field(default_factory=list)
    _plain: deque[str] = field(default_factory=lambda: deque([""]))
    _behind_links: deque[str] = field(default_factory=deque)
    _entered: set[object] = field(default_factory=set)

    def run(self) -> None:
        while self._plain or self._behind_links:
            linked = not self._plain
            below = (self._behind_links if linked else self._plain).popleft()
            try:
                self._enter(below, linked)
            except OSError as error:
                place = self.root / below
                raise FileError(
                    f"The folder {shown(place)!r} can't be read ({error.strerror}). Make it"
                    " readable, or move it elsewhere.",
                    path=place,
                ) from error

    def _enter(self, below: str, linked: bool) -> None:
        place = self.root / below
        itself = _identity(os.stat(place), place)
        if itself in self._entered:
            self.left_out.append(LeftOut(below, "seen at another place"))
            return
        self._entered.add(itself)
        if below:
            self.folders.append(below)
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                path = f"{below}/{entry.name}" if below else entry.name
                if entry.name[0] == ".":
                    self.left_out.append(LeftOut(path, "hidden"))
                elif entry.name in SYSTEM_NAMES:
                    self.left_out.append(LeftOut(path, "that a system left behind"))
                else:
                    self._note(entry, path, linked)

    def _note(self, entry: os.DirEntry[str], path: str, linked: bool) -> None:
        through_link = entry.is_symlink()
        try:
            about = entry.stat()
        except OSError:
            if not through_link:
                raise
            self.left_out.append(LeftOut(path, "links that lead nowhere"))
            return
        if stat.S_ISDIR(about.st_mode):
            # What lies behind a link is seen last, also where it is entered by further folders.
            (self._behind_links if linked or through_link else self._plain).append(path)
        elif stat.S_ISREG(about.st_mode):
            self._seen.append(_Seen(linked or through_link, path, about))
        else:
            self.left_out.append(LeftOut(path, "that are no files"))

    def distinct(self) -> Iterator[Found]:
        """The images, each once; what is no image, or is there already, is left out."""
        taken = set()
        for _, path, about in sorted(self._seen, key=lambda each: each[:2]):
            suffix = os.path.splitext(path)[1].lower()
            place = self.root / path
            if suffix not in SUFFIXES and not is_image(place):
                kind = f"with the suffix {shown(suffix)}" if suffix else "without a suffix"
                self.left_out.append(LeftOut(path, f"{kind}, no images"))
            elif (itself := _identity(about, place)) in taken:
                self.left_out.append(LeftOut(path, "seen at another place"))
            else:
                taken.add(itself)
                yield Found(path, about.st_size, about.st_mtime_ns)


def _identity(about: os.stat_result, place: Path) -> object:
    """What two paths of one file or folder have in common."""
    return (about.st_dev, about.st_ino) if about.st_ino else os.path.realpath(place)
