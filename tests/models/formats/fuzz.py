"""Fuzzes a reader: `python -m tests.models.formats.fuzz READER --cases 200000 --seed 0`.

READER is torch, pickle, caffe, npz, npy, safetensors, foreign, index (of sharded files), onnx, or
graph, which makes networks of ONNX files. Every case must end with what it reads or with an error
of one or two sentences, within a second, without opening, importing or running anything (an index
opens files beside it, and JAX traces graphs), and memory must not grow. Atheris guides pickle,
torch and caffe by coverage where it is installed. For the others, without Atheris, and with
--mutate, pieces of well-formed files are mutated and joined.
"""

import argparse
import contextlib
import encodings.cp437  # noqa: F401  (zipfile's, for names that are no UTF-8)
import json
import os
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
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from tests.fuzzing import Broken, mutated, peak, resident, restart_peak
from tests.models.formats.seeds import SHARDS, members, seeds, zipped
from tests.models.onnx_files import field

READERS = (
    *("torch", "pickle", "caffe", "npz", "npy", "safetensors", "foreign"),
    *("index", "onnx", "graph"),
)
GUIDED = ("torch", "pickle", "caffe")
SECONDS = 1.0
GROWTH = 256 * 2**20
"""Bytes that resident memory may grow by while fuzzing, libFuzzer's own corpus included."""
MEMORY = 256 * 2**20
"""Bytes that a case of some kilobytes may take."""


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
    *(b"a.safetensors", b'"weight_map":'),
    *(b"(2, 3)", b"999999999999999999", b"<f8", b"|O8", b"BF16", b'"shape":[1]', b"nan"),
)
WORDS = (
    *(b"Conv", b"ConvTranspose", b"Gemm", b"MatMul", b"Relu", b"Clip", b"Concat", b"Add", b"Mul"),
    *(b"Pow", b"Div", b"Reshape", b"Transpose", b"Slice", b"Gather", b"Split", b"Pad", b"Resize"),
    *(b"Expand", b"Tile", b"Range", b"ConstantOfShape", b"Einsum", b"ReduceSum", b"Softmax"),
    *(b"Squeeze", b"Unsqueeze", b"Flatten", b"Cast", b"Where", b"TopK", b"Loop", b"If", b"LRN"),
    *(b"GroupNormalization", b"InstanceNormalization", b"SpaceToDepth", b"DepthToSpace", b"Shape"),
    *(b"x", b"y", b"c", b"n", b"r", b"z", b"zero", b"sizes", b"wide", b"many", b"back", b"g", b""),
    *(b"axis", b"axes", b"group", b"pads", b"strides", b"kernel_shape", b"dilations", b"perm"),
    *(
        b"\xff" * 9 + b"\1",
        b"\xff" * 9 + b"\x7f",
        b"\0" * 4,
        b"\0\0\x80\x7f",
        b"\0\0\xc0\x7f",
        b"['', 'b']",
        b"\xe9",
    ),
)
"""What texts and bytes of an ONNX file become."""
PLACES = (
    *(
        "",
        ".",
        "..",
        "/",
        "d",
        "d/a",
        "../a",
        "/dev/zero",
        "~",
        "a\0b",
        "\ud800",
        "a\nb",
        "x" * 300,
    ),
    *(SHARDS[0], f"./{SHARDS[0]}", "x.safetensors.index.json", "pipe", "猫", "a.", 1, None, [], {}),
)
"""Where an index may say that a tensor is."""
NUMBERS = (0, 1, 2, 3, 4, 7, 100, 2**16, 2**27, 2**31 - 1, 2**31, 2**62, 2**64 - 1, 2**64 - 2)


def changed(message: bytes, words: list[bytes], draw: random.Random) -> bytes:
    """A message of Protocol Buffers of which a field is changed, mostly deep within."""
    from ppl_cnn.models.formats.errors import ContentError
    from ppl_cnn.models.formats.protobuf import Message

    fields: list[tuple[int, int | bytes]] = []
    with contextlib.suppress(ContentError):
        for number, value in Message("message").fields(memoryview(message)):
            fields.append((number, value if isinstance(value, int) else bytes(value)))
    if not fields or draw.random() < 0.05:
        if draw.random() < 0.7:
            return draw.choice(words)
        return mutated(message, words, draw, tokens=words)
    sizes = [1 if isinstance(value, int) else 1 + min(len(value), 60) for _, value in fields]
    (at,) = draw.choices(range(len(fields)), sizes)
    number, value = fields[at]
    match draw.randrange(14):
        case 0:
            del fields[at]
        case 1:
            fields.insert(at, draw.choice(fields))
        case 2:
            fields[at] = draw.choice(fields)
        case 3:
            fields[at] = draw.choice((1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 20)), value
        case _ if isinstance(value, int):
            fields[at] = number, draw.choice(NUMBERS)
        case _:
            fields[at] = number, changed(value, words, draw)
    return b"".join(field(*each) for each in fields)


def mutated_file(reader: str, files: list[bytes], draw: random.Random) -> bytes:
    """A file one of whose parts is mutated, mostly with what holds the parts intact."""
    content = draw.choice(files)
    if draw.random() < 0.2:
        return mutated(content, files, draw, tokens=TOKENS)
    if reader in ("onnx", "graph"):
        for _ in range(draw.choice((1, 1, 2, 3, 5))):
            content = changed(content, [*WORDS], draw)
        return content
    if reader == "index" and draw.random() < 0.6:
        index = json.loads(content)
        index["weight_map"][draw.choice(("conv.bias", "other"))] = draw.choice(PLACES)
        return json.dumps(index).encode()
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

watched = False
beside = ""
"""The folder whose files may be opened."""


def watch(event: str, arguments: tuple) -> None:
    """Refuses everything but reading bytes in memory."""
    forbidden = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.", "tempfile.")
    if not watched or (event == "open" and beside and os.path.dirname(arguments[0]) == beside):
        return
    if event in ("open", "import", "exec", "compile") or event.startswith(forbidden):
        raise Broken(f"the reader's code caused {event} {arguments}")


class Reader(NamedTuple):
    """What is fuzzed: a function of a file's content, and what must hold of what it returns."""

    read: Callable[[bytes], Any]
    holds: Callable[[Any], bool]
    is_watched: bool = True
    """Whether it may open, import and run nothing."""


def are_tensors(found: Any) -> bool:
    return bool(found) and all(type(array) is np.ndarray for array in found.values())


def reader_of(name: str, folder: Path) -> Reader:
    """The reader of that name.

    Args:
        name: one of `READERS`.
        folder: an empty folder for an index and its files.
    """
    if name == "index":
        return index_reader(folder)
    if name in ("onnx", "graph"):
        return onnx_reader(name)
    from ppl_cnn.models.formats import tensors_of

    return Reader(tensors_of, are_tensors)


def index_reader(folder: Path) -> Reader:
    from ppl_cnn.models.formats.weights_file import open_weights

    global beside
    beside, path = str(folder), folder / "x.safetensors.index.json"
    for shard in SHARDS:
        arrays = {f"{shard[0]}.weight": np.ones((2, 3), np.float32)}
        (folder / shard).write_bytes(safetensors.numpy.save(arrays))
    (folder / "d").mkdir()
    os.mkfifo(folder / "pipe")

    def read(content: bytes) -> dict[str, np.ndarray]:
        path.write_bytes(content)
        return open_weights(path).tensors

    return Reader(read, are_tensors)


def onnx_reader(name: str) -> Reader:
    from ppl_cnn.models.formats.onnx_file import read_onnx
    from ppl_cnn.models.networks.declaration import Preprocessing
    from ppl_cnn.models.networks.graph import shapes
    from ppl_cnn.models.onnx.network import declared

    def preprocess(channels: int) -> Preprocessing:
        return Preprocessing((0.0,) * channels, (1.0,) * channels, "RGB")

    def fits(imported: Any) -> bool:
        names = {layer.name for layer in imported.network.layers}
        return {*imported.params} <= names == {*shapes(imported.network)} - {"image"}

    if name == "graph":
        return Reader(lambda content: declared(read_onnx(content), "net", preprocess), fits, False)
    return Reader(read_onnx, lambda model: not model.constants or are_tensors(model.constants))


def check(reader: Reader, content: bytes) -> str:
    """Reads the content; the result is "read" or "error"."""
    global watched
    from ppl_cnn.errors import InputError

    begin = time.process_time()
    watched = reader.is_watched
    try:
        found = reader.read(content)
        result = "read"
    except InputError as error:
        result, message = "error", str(error)
    finally:
        watched = False
    if result == "error":
        check_sentence(message)
    elif not reader.holds(found):
        raise Broken("neither tensors nor an error")
    if (seconds := time.process_time() - begin) > SECONDS:
        raise Broken(f"{seconds:.2f} s for {len(content):,} bytes")
    return result


def check_sentence(message: str) -> None:
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "''", message)
    if len(message) > 700 or not re.fullmatch(r"(The|net:|/) ?[^\n]+\.", message):
        raise Broken(f"not a sentence: {message!r}")
    if len(re.findall(r"[.!?] [A-Z]", bare)) > 1:
        raise Broken(f"more than two sentences: {message!r}")


class Tally:
    """Counts cases, and fails if memory grows."""

    def __init__(self, reader: str, cases: int) -> None:
        self.reader, self.cases, self.count = reader, cases, 0
        self.results = {"read": 0, "error": 0}
        self.begin, self.before = time.process_time(), resident()
        self.most = 0

    def add(self, result: str) -> None:
        self.count += 1
        self.results[result] += 1
        self.most = max(self.most, peak())
        if self.count == 1000:
            self.before = resident()  # with all modules and the guide's own tables
        if self.count % 1000 == 0 and resident() - self.before > GROWTH:
            raise Broken(f"memory grew from {self.before:,} to {resident():,} bytes")
        if self.count == self.cases:
            self.report()

    def report(self) -> None:
        seconds = time.process_time() - self.begin
        print(
            f"{self.reader}: {self.count:,} cases in {seconds:.0f} s of processor time "
            f"({self.count / seconds:,.0f}/s); {self.results['read']:,} were read, "
            f"{self.results['error']:,} an error; resident memory "
            f"{self.before / 1e6:.1f} MB after 1,000 cases, {resident() / 1e6:.1f} after all, "
            f"{self.most / 1e6:.1f} at the peak",
            flush=True,
        )


# The two ways.


def guided(reader: str, cases: int, seed: int) -> None:
    """Fuzzes with Atheris, guided by coverage; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["ppl_cnn.models.formats"]):
        from ppl_cnn.models.formats import tensors_of

    tried, files = Reader(tensors_of, are_tensors), seeds(reader)
    shells = [members(file) for file in files if file[:2] == b"PK"]

    def case(data: bytes) -> None:
        # The guide mutates the pickle of a zip file, whose CRC it could never guess.
        if reader == "torch" and data[:1] == b"P":
            parts = shells[data[1] % len(shells)] if len(data) > 1 else shells[0]
            root = next(iter(parts)).partition("/")[0]
            data = zipped({**parts, f"{root}/data.pkl": data[2:]})
        tally.add(check(tried, data))

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
    draw, files = random.Random(seed), seeds(reader)

    def hang(*_: object) -> None:
        raise Broken("a case took 10 s")

    signal.signal(signal.SIGPROF, hang)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        tried = reader_of(reader, Path(folder))
        for file in files:
            with contextlib.suppress(ValueError):
                tried.read(file)
        tally = Tally(reader, cases)
        for _ in range(cases):
            content = mutated_file(reader, files, draw)
            signal.setitimer(signal.ITIMER_PROF, 10)
            restart_peak()
            held = resident()
            try:
                result = check(tried, content)
                if (taken := peak() - held) > MEMORY:
                    raise Broken(f"{taken:,} bytes of memory for {len(content):,}")
            except BaseException:
                print(f"the case is {content!r}", file=sys.stderr)
                raise
            tally.add(result)
        signal.setitimer(signal.ITIMER_PROF, 0)


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
