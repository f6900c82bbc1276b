"""What commands print, whatever the terminal's encoding is."""

import codecs
import io
import sys


def speak_any_text() -> None:
    """Lets standard output and standard error take any text.

    A terminal that lacks a character, as those in ASCII or Latin-1 lack ∝, shows ? for it. A
    file name that isn't UTF-8 is written as the bytes that it has on disk.
    """
    codecs.register_error("ppl_cnn", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ppl_cnn")


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:  # how Python writes a byte that it can't decode
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return "?", error.start + 1
