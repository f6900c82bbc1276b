"""Fuzzes a reader: `python -m tests.models.formats.fuzz READER --cases 200000 --seed 0`.

READER is torch, pickle, caffe, npz, npy, safetensors or foreign. Every case must end with tensors
or with an error of one or two sentences, within a second, without opening, importing or running
anything, and memory must not grow. Atheris guides pickle, torch and caffe by coverage where it is
installed. For the others, without Atheris, and with --mutate, pieces of well-formed files are
mutated and joined.
"""

import argparse
import contextlib
import encodings.cp437  # noqa: F401  (zipfile's, for names that are no UTF-8)
import io
import json
import pickle
import random
import re
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy

from tests.fuzzing import Broken, mutated, peak, resident

GOLDEN = Path(__file__).parent / "golden"
READERS = ("torch", "pickle", "caffe", "npz", "npy", "safetensors", "foreign")
GUIDED = ("torch", "pickle", "caffe")
SECONDS = 1.0
GROWTH = 256 * 2**20
"""Bytes that resident memory may grow by while fuzzing, libFuzzer's own corpus included."""


# Well-formed files.


def members(content: bytes) -> dict[str, bytes]:
    """The members of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def field(number: int, value: int | bytes) -> bytes:
    """A field of a message of Protocol Buffers."""

    def varint(rest: int) -> bytes:
        head = bytearray()
        while rest > 0x7F:
            head.append(rest & 0x7F | 0x80)
            rest >>= 7
        return bytes(head) + bytes([rest])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def seeds(reader: str) -> list[bytes]:
    arrays = {
        "conv.kernel": np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3),
        "conv.bias": np.asfortranarray(np.ones((3, 2), np.float16)),
    }
    if reader == "torch":
        return [path.read_bytes() for path in sorted(GOLDEN.rglob("*.pth"))]
    if reader == "pickle":
        values = [arrays, {"conv1": list(arrays.values())}, {"state_dict": arrays, "epoch": 3}]
        values += [{"state": arrays, "names": {"a", "b"}, "text": np.array(["a"]), "x": Path("a")}]
        values += [{"a": np.array([arrays, None], object), "b": np.array(arrays, object)}]
        return [pickle.dumps(value, protocol) for value in values for protocol in range(2, 6)]
    if reader == "npy":
        saved = []
        for array in (np.array(arrays, object), np.array([1, "a"], object), arrays["conv.bias"]):
            file = io.BytesIO()
            np.save(file, array, allow_pickle=True)
            saved.append(file.getvalue())
        return saved
    if reader == "foreign":
        data = np.ones(12, np.float32).tobytes()
        sizes = b"".join(map(field, (1, 2, 3, 4), (1, 1, 3, 4)))
        return [
            *(b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html><html>"),
            *(b"\x89HDF\r\n\x1a\n\0", b"\x1f\x8b\x08\0", b'name: "LeNet"\n', b'{"a": [1]}'),
            *(field(1, 9) + field(2, b"net") + field(3, data), sizes + field(5, data)),
        ]
    if reader == "npz":
        files = [io.BytesIO(), io.BytesIO()]
        np.savez(files[0], **arrays)  # type: ignore[arg-type]
        np.savez_compressed(files[1], **arrays)  # type: ignore[arg-type]
        return [file.getvalue() for file in files]
    if reader == "safetensors":
        return [safetensors.numpy.save(arrays)]
    numbers = arrays["conv.kernel"].tobytes()
    packed = field(7, field(1, b"\3\4")) + field(5, numbers)
    legacy = b"".join(map(field, (1, 2, 3, 4), (1, 1, 4, 3))) + field(5, numbers)
    alone = b"".join(b"\x2d" + numbers[i : i + 4] for i in range(0, 48, 4))
    double = field(7, field(1, 6)) + field(8, numbers)
    layer = field(1, b"conv1") + field(2, b"Convolution") + field(7, packed) + field(7, double)
    old = field(4, b"fc6") + field(5, 14) + field(6, legacy) + field(6, field(7, b"\10\14") + alone)
    oldest = field(1, b"fc6") + field(2, b"conv") + field(11, 1) + field(50, legacy)
    pooling = field(1, b"pool1") + field(2, b"Pooling") + field(121, field(1, 1))
    return [
        field(1, b"net") + field(100, pooling) + field(100, layer),
        field(1, b"net") + field(2, old),
        field(1, b"net") + field(2, field(1, oldest) + field(3, b"fc6")),
    ]


# Mutation.

TOKENS = (
    *(bytes([opcode]) for opcode in b"(.]})tRQbuaseNc\x85\x86\x87\x88\x89\x93\x94"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"cos\nsystem\n"),
    *(b"cbuiltins\neval\n", b"ccollections\nOrderedDict\n", b"cnumpy\ndtype\n", b"X\1\0\0\0a"),
    *(struct.pack("<q", number) for number in (0, 1, -1, 2**31, 2**47, 2**62, -(2**63))),
    *(struct.pack("<i", number) for number in (0, 1, -1, 2**31 - 1)),
    *(b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"{", b"[", b"'"),
    *(b"\x81", b"\x92", b"\x8f", b"\x90", b"\x91", b"0", b"1", b"cargparse\nNamespace\n"),
    *(b"X\x08\0\0\0_modules", b"c__builtin__\nset\n", b"ccollections\ndefaultdict\n"),
    *(b"ctorch._utils\n_rebuild_sparse_tensor\n", b"ctorch._tensor\n_rebuild_from_type_v2\n"),
    *(b"(2, 3)", b"999999999999999999", b"<f8", b"|O8", b"BF16", b'"shape":[1]', b"nan"),
)


def mutated_file(reader: str, files: list[bytes], draw: random.Random) -> bytes:
    """A file one of whose parts is mutated, mostly with what holds the parts intact."""
    content = draw.choice(files)
    if draw.random() < 0.2:
        return mutated(content, files, draw, tokens=TOKENS)
    if content[:2] == b"PK":
        parts = members(content)
        pickles = [name for name in parts if name.endswith((".pkl", ".npy"))]
        chosen = draw.choice(pickles if draw.random() < 0.8 else list(parts))
        parts[chosen] = mutated(parts[chosen], [*parts.values()], draw, tokens=TOKENS)
        if draw.random() < 0.1:
            parts.pop(draw.choice(list(parts)))
        return zipped(parts, draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    if reader == "safetensors":
        (length,) = struct.unpack("<Q", content[:8])
        other = json.dumps({"a": 1}).encode()
        header = mutated(content[8 : 8 + length], [other], draw, tokens=TOKENS)
        return struct.pack("<Q", len(header)) + header + content[8 + length :]
    return content[:2] + mutated(content[2:], files, draw, tokens=TOKENS)


# What must hold.

reading = False


def watch(event: str, arguments: tuple) -> None:
    """Refuses everything but reading bytes in memory."""
    forbidden = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.", "tempfile.")
    if reading and (event in ("open", "import", "exec", "compile") or event.startswith(forbidden)):
        raise Broken(f"the reader's code caused {event} {arguments}")


def check(read: Callable[[bytes], dict[str, np.ndarray]], content: bytes) -> str:
    """Reads the content; the result is "tensors" or "error"."""
    global reading
    from ppl_cnn.models.formats import ContentError

    begin = time.perf_counter()
    reading = True
    try:
        tensors = read(content)
        result = "tensors"
    except ContentError as error:
        result, message = "error", str(error)
    finally:
        reading = False
    if result == "error":
        bare = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "''", message)
        if len(message) > 600 or not re.fullmatch(r"The file [^\n]+\.", message):
            raise Broken(f"not a sentence: {message!r}")
        if len(re.findall(r"[.!?] [A-Z]", bare)) > 1:
            raise Broken(f"more than two sentences: {message!r}")
    elif not tensors or not all(type(array) is np.ndarray for array in tensors.values()):
        raise Broken("neither tensors nor an error")
    if (seconds := time.perf_counter() - begin) > SECONDS:
        raise Broken(f"{seconds:.2f} s for {len(content):,} bytes")
    return result


class Tally:
    """Counts cases, and fails if memory grows."""

    def __init__(self, reader: str, cases: int) -> None:
        self.reader, self.cases, self.count = reader, cases, 0
        self.results = {"tensors": 0, "error": 0}
        self.begin, self.before = time.perf_counter(), resident()

    def add(self, result: str) -> None:
        self.count += 1
        self.results[result] += 1
        if self.count == 1000:
            self.before = resident()  # with all modules and the guide's own tables
        if self.count % 1000 == 0 and resident() - self.before > GROWTH:
            raise Broken(f"memory grew from {self.before:,} to {resident():,} bytes")
        if self.count == self.cases:
            self.report()

    def report(self) -> None:
        seconds = time.perf_counter() - self.begin
        print(
            f"{self.reader}: {self.count:,} cases in {seconds:.0f} s "
            f"({self.count / seconds:,.0f}/s); {self.results['tensors']:,} gave tensors, "
            f"{self.results['error']:,} an error; resident memory "
            f"{self.before / 1e6:.1f} MB after 1,000 cases, {resident() / 1e6:.1f} after all, "
            f"{peak() / 1e6:.1f} at the peak",
            flush=True,
        )


# The two ways.


def guided(reader: str, cases: int, seed: int) -> None:
    """Fuzzes with Atheris, guided by coverage; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["ppl_cnn.models.formats"]):
        from ppl_cnn.models.formats import tensors_of

    files = seeds(reader)
    shells = [members(file) for file in files if file[:2] == b"PK"]

    def case(data: bytes) -> None:
        # The guide mutates the pickle of a zip file, whose CRC it could never guess.
        if reader == "torch" and data[:1] == b"P":
            parts = shells[data[1] % len(shells)] if len(data) > 1 else shells[0]
            root = next(iter(parts)).partition("/")[0]
            data = zipped({**parts, f"{root}/data.pkl": data[2:]})
        tally.add(check(tensors_of, data))

    with tempfile.TemporaryDirectory() as folder:
        for index, file in enumerate(files):
            parts = members(file) if file[:2] == b"PK" else {}
            pickled = next((parts[name] for name in parts if name.endswith("data.pkl")), None)
            start = b"P" + bytes([len([f for f in files[:index] if f[:2] == b"PK"])])
            content = file if pickled is None else start + pickled
            (Path(folder) / str(index)).write_bytes(content)
        options = [f"-runs={cases}", f"-seed={seed + 1}", "-max_len=4096", "-timeout=10"]
        options += ["-rss_limit_mb=2048", "-verbosity=0", f"-artifact_prefix={folder}/"]
        atheris.Setup([sys.argv[0], folder, *options], case)
        tally = Tally(reader, cases)
        atheris.Fuzz()


def unguided(reader: str, cases: int, seed: int) -> None:
    from ppl_cnn.models.formats import tensors_of

    draw, files = random.Random(seed), seeds(reader)

    def hang(*_: object) -> None:
        raise Broken("a case took 10 s")

    signal.signal(signal.SIGALRM, hang)
    for file in files:
        with contextlib.suppress(ValueError):
            tensors_of(file)
    tally = Tally(reader, cases)
    for _ in range(cases):
        content = mutated_file(reader, files, draw)
        signal.alarm(10)
        try:
            result = check(tensors_of, content)
        except BaseException:
            print(f"the case is {content!r}", file=sys.stderr)
            raise
        tally.add(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutate", action="store_true", help="without Atheris")
    options = parser.parse_args()
    sys.addaudithook(watch)
    way = unguided
    if options.reader in GUIDED and not options.mutate:
        with contextlib.suppress(ImportError):
            import atheris  # noqa: F401

            way = guided
    way(options.reader, options.cases, options.seed)


if __name__ == "__main__":
    main()
