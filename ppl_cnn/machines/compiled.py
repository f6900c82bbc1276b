"""What a compiled program would do on its devices, read from XLA's text of it."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import jax

_FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "iota", "after-all"),
    *("partition-id", "opt-barrier"),
}
"""Operations that launch nothing."""
_COLLECTIVES = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"),
    "collective-broadcast",
)


class Line(NamedTuple):
    """An operation of a computation."""

    kind: str
    """Such as fusion, while, custom-call, scatter."""
    text: str

    @property
    def target(self) -> str:
        """What a custom-call calls, such as __cudnn$convForward; empty for others."""
        found = re.search(r'custom_call_target="([^"]+)"', self.text)
        return found[1] if found else ""

    def called(self, part: str) -> str:
        """The computation that is a while's `body`, for example; empty if there is none."""
        found = re.search(rf"\b{part}=%?([\w.\-]+)", self.text)
        return found[1] if found else ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an array that the operation returns."""
        found = re.search(r"= \w+\[([\d,]*)\]", self.text)
        return tuple(map(int, found[1].split(","))) if found and found[1] else ()

    def dot(self, beside: list["Line"]) -> int:
        """The additions and multiplications of a matrix product.

        Args:
            beside: the operations of its computation, with those that it reads.
        """
        read = re.search(r"dot\([^%]*%([\w.\-]+)", self.text)
        (left,) = (each for each in beside if read and f"%{read[1]} = " in each.text)
        over = self.axes("lhs_contracting_dims")
        return 2 * math.prod(self.shape) * math.prod(left.shape[axis] for axis in over)

    def axes(self, part: str) -> list[int]:
        """The axes that are the value of a part of the text."""
        found = re.search(rf"{part}=\{{([\d,]*)\}}", self.text)
        return [int(axis) for axis in found[1].split(",")] if found and found[1] else []


@dataclass(frozen=True)
class Program:
    """A compiled program."""

    text: str
    """XLA's, after all its passes."""
    memory: "Memory"
    platform: str
    """Its devices', such as cpu or gpu."""

    @classmethod
    def of(cls, compiled: jax.stages.Compiled, platform: str) -> Self:
        """Reads a program.

        Args:
            compiled: what `jax.jit(...).lower(...).compile()` returns.
            platform: of its devices.
        """
        found: Any = compiled.memory_analysis()
        outputs = found.output_size_in_bytes - found.alias_size_in_bytes
        memory = Memory(found.argument_size_in_bytes, found.temp_size_in_bytes, outputs)
        return cls(compiled.as_text() or "", memory, platform)

    @cached_property
    def computations(self) -> Mapping[str, list[Line]]:
        """Name -> operations in order. A fusion's own operations are a computation, too."""
        found, name = dict[str, list[Line]](), ""
        for line in self.text.splitlines():
            if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line):
                name = "ENTRY" if head[1] else head[2]
                found[name] = []
            elif operation := re.match(
                r"\s+(?:ROOT )?%?[\w.\-]+ = (?:\(.*?\)|\S+) ([\w\-]+)\(", line
            ):
                found[name].append(Line(operation[1], line))
        return found

    def __iter__(self) -> Iterator[Line]:
        """All operations, also those inside fusions."""
        for lines in self.computations.values():
            yield from lines

    def launches(self, name: str = "ENTRY") -> int:
        """Operations that a computation launches, each of its loops' once.

        Args:
            name: the computation's; by default the whole program.
        """
        count = 0
        for line in self.computations[name]:
            count += line.kind not in _FREE
            if line.kind == "while":
                count += self.launches(line.called("body"))
        return count

    @cached_property
    def innermost(self) -> str:
        """The body of the loop that lies deepest; of several, the one that launches most."""

        def bodies(name: str, depth: int) -> Iterator[tuple[int, int, str]]:
            for line in self.computations[name]:
                parts = re.findall(r"%([\w.\-]+)", line.text) if line.kind == "conditional" else []
                if line.kind == "while":
                    body = line.called("body")
                    yield depth, self.launches(body), body
                    yield from bodies(body, depth + 1)
                for part in parts:
                    if part in self.computations:
                        yield from bodies(part, depth)

        return max(bodies("ENTRY", 1), default=(0, 0, "ENTRY"))[2]

    def uncounted(self, counted: int = 1, *, name: str = "ENTRY", times: int = 1) -> float:
        """Operations of matrix products beyond XLA's count, which takes a loop's body once.

        Args:
            counted: how often the body of an outermost loop is taken.
            name: the computation's; by default the whole program.
            times: how often it runs.
        """
        total, lines = 0.0, self.computations[name]
        for line in lines:
            rounds = re.search(r'known_trip_count":\{"n":"(\d+)"', line.text)
            if line.kind == "dot" and times > counted:
                total += (times // counted - 1) * line.dot(lines)
            for part in ("body", "calls", "to_apply"):
                if (called := line.called(part)) in self.computations:
                    more = times * (int(rounds[1]) if rounds else 1)
                    total += self.uncounted(counted, name=called, times=more)
        return total

    @property
    def collectives(self) -> Counter[str]:
        """Kind -> number of operations by which devices wait for each other."""
        kinds = (line.kind.removesuffix("-start") for line in self)
        return Counter(kind for kind in kinds if kind in _COLLECTIVES)

    @property
    def disordered(self) -> Counter[str]:
        """Kind -> number of operations that add in another order at each run."""
        return Counter(
            line.kind
            for line in self
            if line.kind in ("scatter", "select-and-scatter")
            and "unique_indices=true" not in line.text
        )

    @property
    def tried_out(self) -> int:
        """Convolutions, whose kernels a GPU chooses at each start by trying them out."""
        return sum(line.target.startswith("__cudnn$conv") for line in self)

    @property
    def unwanted(self) -> Counter[str]:
        """What a program for a GPU should not have -> how often it has it."""
        found = Counter[str]()
        for line in self:
            dilated = "convForward" in line.target or "ActivationForward" in line.target
            found["float64"] += " f64[" in line.text
            found["select-and-scatter"] += line.kind == "select-and-scatter"
            found["host callback"] += "callback" in line.target
            found["convolution of a gradient with zeros between"] += (
                dilated and "lhs_dilate=" in line.text
            )
        return +found

    def remarks(self, *, deterministic: bool = False) -> list[str]:
        """What a user should know of it, in lines: collectives, order of additions, faults.

        Args:
            deterministic: whether it was compiled by the options `arithmetic.DETERMINISTIC`.
        """
        lines = [f"collectives: {_counted(self.collectives)}"]
        if self.platform == "cpu":  # which adds in one order, and has one kernel for all
            return lines
        differing = []
        if self.disordered:
            differing.append(f"{_counted(self.disordered)} that add in no fixed order")
        if self.tried_out and not deterministic:
            differing.append(f"{self.tried_out} convolutions whose kernels are chosen by trying")
        whole = "nothing" if not differing else " and ".join(differing)
        advice = " (--deterministic prevents it)" if differing and not deterministic else ""
        lines.append(f"what differs from run to run: {whole}{advice}")
        if self.unwanted:
            lines.append(f"slow on a GPU: {_counted(self.unwanted)}")
        return lines


class Memory(NamedTuple):
    """Bytes on a device."""

    arguments: int
    temporaries: int
    outputs: int
    """Results that take no argument's place."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)

    def __str__(self) -> str:
        whole, arguments, temporaries = map(size_text, (self.total, *self[:2]))
        return f"{whole}, of which {arguments} arguments and {temporaries} temporaries"


def size_text(count: float) -> str:
    """Bytes as text, in MiB or GiB."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"
