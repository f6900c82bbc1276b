"""What the fuzzers share: mutation, memory, and the exception that tells of a broken reader."""

import random
import resource
from collections.abc import Sequence
from pathlib import Path


class Broken(BaseException):
    """A reader did what it must never do; no `except Exception` catches this."""


def mutated(
    content: bytes,
    others: Sequence[bytes],
    draw: random.Random,
    *,
    tokens: Sequence[bytes],
    heads: Sequence[int] = (),
) -> bytes:
    """The content after a few random changes.

    Args:
        content: a file's.
        others: files of which pieces are put in.
        draw: decides.
        tokens: what the format gives a meaning to.
        heads: lengths of a beginning that changes may keep to, where what steers a reader stands.
    """
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        reach = min(len(data), draw.choice((*heads, len(data)))) + 1
        at, length = draw.randrange(reach), draw.choice((1, 1, 2, 4, 8, 32))
        match draw.randrange(7):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << draw.randrange(8)
            case 1:
                data[at : at + 1] = bytes([draw.choice((0, 1, 0x7F, 0x80, 0xFF))])
            case 2:
                del data[at : at + length]
            case 3:
                token = draw.choice(tokens)
                data[at : at + draw.choice((0, len(token)))] = token
            case 4:
                data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
            case 5:
                other = draw.choice(others)
                start = draw.randrange(len(other) + 1)
                data[at : at + length] = other[start : start + draw.choice((4, 16, 64))]
            case 6:
                del data[at:]
    return bytes(data)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """Bytes of this process in memory at most, since `restart_peak` if that was called."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def restart_peak() -> None:
    """Makes `peak` count from what is in memory now."""
    Path("/proc/self/clear_refs").write_text("5")
