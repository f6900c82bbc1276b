"""Restricted reader of pickles: it makes plain data and tensor records, and never runs code.

Python's own unpickler is not used. Even with `find_class` closed, it hashes any key that a file
makes (nested tuples take exponential time), and allocates for any memo index and length that a file
names. This reader admits only the instructions that files of tensors use. Names of Python objects
stand for functions of ours; all others become a `Placeholder`, which keeps what the file says of
the object and does nothing. The number of steps is bounded, and each takes memory in proportion to
the bytes that it reads.
"""

import abc
import io
import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ppl_cnn.models.formats.errors import ContentError

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
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK"),
    *("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "ADDITEMS", "FROZENSET"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    *("BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "BINPERSID"),
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

    entries: list[object] = field(default_factory=list)
    """(key, value) in the order of the file; what a file gives as pairs may be anything else."""

    def pairs(self) -> Iterator[tuple[object, object]]:
        """The entries, of which one that is no pair is as one of the key 0."""
        for entry in self.entries:
            match entry:
                case (key, value):
                    yield key, value
                case _:
                    yield 0, None

    def build(self, state: object, encoded: Callable[[str], bytes]) -> None:
        """Leaves out the attributes of a dict, such as PyTorch's `_metadata`."""


@dataclass(eq=False, slots=True)
class Placeholder(Buildable):
    """A Python object that the file names: what the file says of it, and no more.

    A class, a function and an instance or result of it look alike.
    """

    name: str
    """Its module and name, or those of its class."""
    arguments: object = ()
    """What its class or function would have been called with."""
    mapping: Pairs = field(default_factory=Pairs)
    """The pairs that it was filled with, as a dict of a class of its own is."""
    items: list[object] = field(default_factory=list)
    """The items that it was filled with, as a list or a set is."""
    state: object = None
    """The state that it was given, as the attributes of a module are."""

    def build(self, state: object, encoded: Callable[[str], bytes]) -> None:
        """Keeps the state."""
        self.state = state


class Encode:
    """The stand-in for `_codecs.encode`, by which Python 3 writes bytes in protocol 2."""


class Machine:
    """Follows the instructions of one pickle or several.

    Args:
        stands: "module name" of a Python object -> its stand-in, a function of ours or a value; all
            other objects become placeholders.
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
            ContentError: the pickle is damaged, or has an instruction that files of tensors do not
                need.
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
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._since_mark()
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append(Pairs())
            case "TUPLE" | "FROZENSET":
                items = self._since_mark()
                self.stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPEND" | "SETITEM":
                items = [stack.pop() for _ in range(2 if name == "SETITEM" else 1)]
                _extend(stack[-1], items[::-1], paired=name == "SETITEM")
            case "APPENDS" | "ADDITEMS" | "SETITEMS":
                items = self._since_mark()
                _extend(self.stack[-1], items, paired=name == "SETITEMS")
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                index = len(self.memo) if argument is None else argument
                self.memo[index] = stack[-1]
            case "GLOBAL" | "STACK_GLOBAL":
                words = [stack.pop(), stack.pop()][::-1] if argument is None else [argument]
                stack.append(self._stand(words))
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                if name == "NEWOBJ_EX":
                    stack.pop()  # the arguments by name
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._called(function, arguments))
            case "BUILD":
                # What else has attributes, such as a tensor, is the same without them.
                state, target = stack.pop(), stack[-1]
                if isinstance(target, Buildable):
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
            case Placeholder(), _:
                return Placeholder(function.name, arguments)
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
        return self.stands[name] if name in self.stands else Placeholder(name)


def _extend(target: object, items: list[object], *, paired: bool) -> None:
    """Fills a dict with keys and values in turn, or a list or set with items."""
    if isinstance(target, Placeholder):
        target = target.mapping if paired else target.items
    if paired and isinstance(target, Pairs) and len(items) % 2 == 0:
        target.entries.extend(zip(items[::2], items[1::2], strict=True))
    elif not paired and isinstance(target, list):
        target.extend(items)
    else:
        raise ContentError("fills something other than a list or a dict.")
