"""Members of a zip archive, read within bounds on memory and time."""

import io
import struct
import zipfile
import zlib

from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown

EXPANSION = 16
"""Largest ratio of the members' size to the archive's; deflate could reach 1,032."""


class Archive:
    """A zip archive in memory.

    Stored members are views of the content and cost no memory. Deflated members are decompressed up
    to the size that the archive's directory gives. All together may have `EXPANSION` times the
    archive's size.

    Args:
        content: the bytes of the archive.

    Raises:
        ContentError: the archive is damaged, or its members would take too much memory.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, ValueError, struct.error, OSError, NotImplementedError):
            raise ContentError("is not an intact zip archive.") from None
        size = sum(max(entry.file_size, entry.compress_size) for entry in entries)
        if size > EXPANSION * len(content):
            raise ContentError(
                f"would expand to {size:,} bytes, more than {EXPANSION} times its own size of "
                f"{len(content):,}."
            )
        self.entries = {entry.filename: entry for entry in entries}
        """The directory's entries by the names of the members."""

    def read(self, name: str) -> bytes | memoryview:
        """The content of a member, checked against its CRC.

        Args:
            name: the member's name in the archive.

        Raises:
            ContentError: the member is missing, damaged, encrypted, or compressed by another method
                than deflate.
        """
        if name not in self.entries:
            raise ContentError(f"lacks the member {shown(name)}.")
        entry = self.entries[name]
        packed = self._packed(entry)
        if entry.compress_type == zipfile.ZIP_STORED:
            member: bytes | memoryview = packed
        elif entry.compress_type == zipfile.ZIP_DEFLATED:
            try:
                member = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, entry.file_size)
            except zlib.error:
                member = b""
        else:
            raise ContentError(f"has the member {shown(name)} of unsupported compression.")
        if len(member) != entry.file_size or zlib.crc32(member) != entry.CRC:
            raise ContentError(f"has the damaged member {shown(name)}.")
        return member

    def _packed(self, entry: zipfile.ZipInfo) -> memoryview:
        """The bytes of a member as the archive stores them."""
        # The member's own header gives the lengths of name and extra field; they may differ from
        # those in the directory.
        head = self.content[entry.header_offset : entry.header_offset + 30]
        if entry.header_offset < 0 or len(head) < 30 or entry.flag_bits & 1:
            raise ContentError(f"has the damaged or encrypted member {shown(entry.filename)}.")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", head[26:]))
        return memoryview(self.content)[start : start + entry.compress_size]
