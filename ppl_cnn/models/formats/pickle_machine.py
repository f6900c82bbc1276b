"""Restricted reader of pickles: it accepts plain data and tensor records, and never runs code.

Python's own unpickler is not used. Even with `find_class` closed, it hashes any key that a file
makes (nested tuples take exponential time), and allocates for any memo index and length that a file
names. This reader admits only the instructions that files of tensors use. Names of Python objects
stand for functions of ours, or are refused. The number of steps is bounded, and each takes memory
in proportion to the bytes that it reads.
"""

import abc
import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ppl_cnn.models.formats.errors import ContentError
from ppl_cnn.models.formats.names import shown

STEPS = 1_000_000
"""Largest number of instructions; AlexNet's state dict has some 600."""

_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUSHED = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_OTHERS = (
    *("PROTO", "FRAME", "STOP", "MARK", "EMPTY_LIST", "EMPTY_DICT"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    *("BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
)
_ADMITTED = {*_CONSTANTS, *_PUSHED, *_OTHERS}


class Buildable(abc.ABC):
    """An object that the instruction BUILD may complete."""

    __slots__ = ()

    @abc.abstractmethod
    def build(self, state: object, encoded: Callable[[str], bytes]) -> None:
        """Completes the object in place.

        Args:
            state: the state that the pickle gives for the object.
            encoded: a function from text to its bytes, which counts against the machine's bound.

        Raises:
            ContentError: the state does not fit the object.
        """


@dataclass(eq=False, slots=True)
class Pairs(Buildable):
    """A dict of a pickle as its pairs; keys are never hashed or compared."""

    entries: list[tuple[object, object]] = field(default_factory=list)
    """(key, value) in the order of the file."""

    def build(self, state: object, encoded: Callable[[str], bytes]) -> None:
        """Leaves out the attributes of a dict, such as PyTorch's `_metadata`."""


class Encode:
    """The stand-in for `_codecs.encode`, by which Python 3 writes bytes in protocol 2."""


class Machine:
    """Follows the instructions of one pickle or several.

    Args:
        stands: "module name" of a Python object -> its stand-in, a function of ours or a value; all
            other objects are refused.
        persistent: a function from a persistent id to its object.
    """

    def __init__(
        self, stands: Mapping[str, object], persistent: Callable[[object], object]
    ) -> None:
        self.stands = stands
        self.persistent = persistent
        self.stack: list[object] = []
        self.below: list[list[object]] = []
        self.memo: dict[object, object] = {}
        self.encodable = 0

    def load(self, file: io.BytesIO) -> object:
        """The object of the pickle at the file's position, which moves to the pickle's end.

        Args:
            file: the content, in memory.

        Raises:
            ContentError: the pickle is damaged, or has an instruction or names a Python object that
                files of tensors do not need.
        """
        begin = file.tell()
        self.encodable = file.seek(0, io.SEEK_END)
        file.seek(begin)
        for _ in range(STEPS):
            position, code = file.tell(), file.read(1)
            try:
                opcode = _OPCODES[code]
                if opcode.name not in _ADMITTED:
                    raise ContentError(
                        f"has the pickle instruction {opcode.name} at byte {position}, which files "
                        "of tensors do not need."
                    )
                argument = opcode.arg.reader(file) if opcode.arg else None
                if opcode.name == "STOP":
                    return self.stack.pop()
                self._step(opcode.name, argument)
            except ContentError:
                raise
            except (ValueError, LookupError, OverflowError):
                raise ContentError(
                    f"is not an intact pickle: it is damaged or cut short at byte {position}."
                ) from None
        raise ContentError(f"has more than {STEPS:,} pickle instructions.")

    def _step(self, name: str, argument: object) -> None:
        stack = self.stack
        match name:
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append(Pairs())
            case "TUPLE":
                items = self._since_mark()
                self.stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPEND" | "SETITEM":
                items = [stack.pop() for _ in range(2 if name == "SETITEM" else 1)]
                _extend(stack[-1], items[::-1])
            case "APPENDS" | "SETITEMS":
                items = self._since_mark()
                _extend(self.stack[-1], items)
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                index = len(self.memo) if argument is None else argument
                self.memo[index] = stack[-1]
            case "GLOBAL" | "STACK_GLOBAL":
                words = [stack.pop(), stack.pop()][::-1] if argument is None else [argument]
                stack.append(self._stand(words))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._called(function, arguments))
            case "BUILD":
                state, target = stack.pop(), stack[-1]
                if not isinstance(target, Buildable):
                    raise ContentError("completes something other than a NumPy array of numbers.")
                target.build(state, self._encoded)
            case "BINPERSID":
                stack.append(self.persistent(stack.pop()))
            case "PROTO" | "FRAME":
                pass
            case _:
                stack.append(_CONSTANTS.get(name, argument))

    def _since_mark(self) -> list[object]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _called(self, function: object, arguments: object) -> object:
        match function, arguments:
            case Encode(), (str(text), "latin1" | "latin-1"):
                return self._encoded(text)
            # The longest record has 9 fields; an endless one could be handed over many times.
            case _, tuple() if callable(function) and len(arguments) <= 9:
                return function(*arguments)
        raise ContentError("calls something other than a function of tensor records.")

    def _encoded(self, text: str) -> bytes:
        # A text is in the file once, but the file may have it encoded any number of times.
        self.encodable -= len(text)
        if self.encodable < 0:
            raise ContentError("encodes more bytes than it has.")
        return text.encode("latin-1")

    def _stand(self, words: list[object]) -> object:
        name = " ".join(word for word in words if isinstance(word, str))
        if name not in self.stands:
            raise ContentError(
                f"contains the Python object {shown(name.replace(' ', '.'))}, and only tensors are "
                "read. Save the weights alone, as with torch.save(model.state_dict(), file)."
            )
        return self.stands[name]


def _extend(target: object, items: list[object]) -> None:
    if isinstance(target, Pairs) and len(items) % 2 == 0:
        target.entries.extend(zip(items[::2], items[1::2], strict=True))
    elif isinstance(target, list):
        target.extend(items)
    else:
        raise ContentError("fills something other than a list or a dict.")
