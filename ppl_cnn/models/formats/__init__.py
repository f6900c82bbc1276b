"""Readers of the file formats in which trained networks are published.

A new format is a file with a reader, a function of a file's content to tensors by name, and a
branch in `ppl_cnn.models.formats.weights_file` that recognises the content.
"""

from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.weights_file import read_file, read_tensors, tensors_of

__all__ = ["ContentError", "read_file", "read_tensors", "tensors_of"]
