"""The members of a zip archive, within bounds."""

import io
import struct
import zipfile
import zlib

from ppl_cnn.errors import InputError
from ppl_cnn.models.formats.names import shown

EXPANSION = 16
"""How many times the archive's size its members may have; deflate could reach 1,032."""


class Archive:
    """A zip archive in memory.

    Stored members are views of it and cost no memory; deflated ones are decompressed up to the
    size that the archive's directory gives, and the sizes of all must be within `EXPANSION`
    times the archive's.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, ValueError, struct.error, OSError, NotImplementedError):
            raise InputError("it is no intact zip archive.") from None
        size = sum(max(entry.file_size, entry.compress_size) for entry in entries)
        if size > EXPANSION * len(content):
            raise InputError(
                f"its members would take {size:,} bytes, more than {EXPANSION} times the "
                f"{len(content):,} of the file."
            )
        self.entries = {entry.filename: entry for entry in entries}

    def read(self, name: str) -> bytes | memoryview:
        """The content of a member, checked against its CRC."""
        if name not in self.entries:
            raise InputError(f"it has no member {shown(name)}.")
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
            raise InputError(f"its member {shown(name)} is compressed in an unusual way.")
        if len(member) != entry.file_size or zlib.crc32(member) != entry.CRC:
            raise InputError(f"its member {shown(name)} is damaged.")
        return member

    def _packed(self, entry: zipfile.ZipInfo) -> memoryview:
        """The bytes of a member as they lie in the archive."""
        # The lengths of name and extra field stand in the member's own header, and may differ
        # from those in the directory.
        head = self.content[entry.header_offset : entry.header_offset + 30]
        if entry.header_offset < 0 or len(head) < 30 or entry.flag_bits & 1:
            raise InputError(f"its member {shown(entry.filename)} is damaged or encrypted.")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", head[26:]))
        return memoryview(self.content)[start : start + entry.compress_size]
