"""The wire format of Protocol Buffers, which caffemodels and ONNX files are written in.

Source: protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

from ppl_cnn.models.formats.errors import ContentError

FIELDS = 500_000
"""Largest number of fields; published files have some thousands, as numbers are packed."""


class Message:
    """Reads the fields of a message and of the messages in it, at most `FIELDS` in all.

    Args:
        kind: what the content is meant to be, for errors: "caffemodel".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.left = FIELDS
        """The number of fields that may still be read."""

    def fields(self, part: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """The number and value of each field of a message: an integer, or the value's bytes.

        Args:
            part: the bytes of the message.

        Raises:
            ContentError: the message is damaged, or `FIELDS` fields have been read.
        """
        at = 0
        while at < len(part):
            self.left -= 1
            if self.left < 0:
                raise ContentError(f"has more than {FIELDS:,} fields.")
            tag, at = self.varint(part, at)
            size = 0
            match tag & 7:
                case 0:
                    value, at = self.varint(part, at)
                    yield tag >> 3, value
                    continue
                case 1:
                    size = 8
                case 2:
                    size, at = self.varint(part, at)
                case 5:
                    size = 4
                case _:
                    raise self.fault("a field has an unknown type")
            if at + size > len(part):
                raise self.fault("it is cut short or damaged")
            yield tag >> 3, part[at : at + size]
            at += size

    def numbers(self, part: memoryview) -> list[int]:
        """The integers of a packed field."""
        found, at = [], 0
        while at < len(part):
            value, at = self.varint(part, at)
            found.append(value)
        return found

    def varint(self, part: memoryview, at: int) -> tuple[int, int]:
        """The integer at a position (64 bits, 7 a byte, lowest first), and the position after."""
        value = 0
        for index, byte in enumerate(part[at : at + 10]):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value & (2**64 - 1), at + index + 1
        raise self.fault("it is cut short or damaged")

    def fault(self, what: str) -> ContentError:
        """The error of damaged content."""
        return ContentError(f"is not an intact {self.kind}: {what}.")
