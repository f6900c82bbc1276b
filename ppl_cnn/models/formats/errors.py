"""The error of the readers, which know a file's content but not its path."""

from ppl_cnn.errors import InputError


class ContentError(InputError):
    """The content of a file is damaged, of another format, or not tensors.

    The readers of content raise it; `read_file` turns it into a `FileError` with the path.

    Args:
        fault: the fault as a predicate whose subject is the file: "contains no tensors."
    """

    def __init__(self, fault: str) -> None:
        super().__init__(f"The file {fault}")
        self.fault = fault
