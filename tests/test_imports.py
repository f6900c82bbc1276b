"""The rooms of the house, and which of them may import from which."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ppl_cnn

PACKAGE = Path(ppl_cnn.__file__).parent

GROUND = {"errors", "files", "numeric", "progress", "user_modules", "work"}
MODELS = {
    "models/formats": set(),
    "models/networks": set(),
    "models/onnx": {"models/formats", "models/networks"},
    "models/keras": {"models/formats"},
    "models/units": {"models/networks"},
    "models/generators": {"models/formats", "models/networks", "models/onnx"},
    "models/references": {"models/networks", "models/generators", "data"},
    "models/density": {"models/networks", "models/units", "models/references"},
    "models/trained": {
        *("models/formats", "models/networks", "models/onnx", "models/keras", "models/units"),
    },
}
MODELS["models/empirical_density"] = set(MODELS) - {"models/formats"}
ALL_MODELS = set(MODELS)
INFERENCE = {
    "inference/importance": set(),
    "inference/kernels": set(),
    "inference/runs": set(),
    "inference/sampling": ALL_MODELS
    | {"data", "inference/importance", "inference/kernels", "inference/runs", "machines"},
    "inference/diagnostics": {"inference/importance", "inference/runs"},
    "inference/report": {"inference/diagnostics", "inference/importance", "inference/runs"},
    "inference/training": ALL_MODELS
    | {"data", "data/sources", "inference/importance", "inference/runs", "machines"},
}
# Builders in sources/ read the catalogue, and what opens and prepares data calls the builders; no
# two modules import each other.
DATA = {"data": {"data/sources"}, "data/sources": {"data"}}
OPTIONS = {
    "options": {
        *("models/density", "models/empirical_density", "models/references"),
        *("models/trained", "models/units"),
    },
}
_DIAGNOSTICS, _REPORT = "inference/diagnostics", "inference/report"
INNER = {
    f"{_DIAGNOSTICS}/mixing": {_DIAGNOSTICS},
    f"{_DIAGNOSTICS}/verdict": {_DIAGNOSTICS, f"{_DIAGNOSTICS}/mixing"},
    f"{_REPORT}/frame": set(),
    f"{_REPORT}/pictures": set(),
    f"{_REPORT}/parts": {f"{_REPORT}/frame", f"{_REPORT}/pictures"},
}
"""A room within a room -> what it may import of that room, besides itself."""
MOST_FILES = 14
MAY_IMPORT = {"machines": set(), **MODELS, **INFERENCE, **DATA, **OPTIONS}
"""Room -> the rooms that it may import from, besides the ground and itself. Commands may import
from all of them."""


def room_of(module: str) -> str:
    """`inference/kernels` for ppl_cnn.inference.kernels.split."""
    parts = module.split(".")[1:]
    path = "/".join(parts[:2])
    return path if path in MAY_IMPORT else parts[0] if parts else ""


def imported(file: Path) -> Iterator[str]:
    """The package's modules that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ppl_cnn"):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.startswith("ppl_cnn"))


def module_of(file: Path) -> str:
    return ".".join(("ppl_cnn", *file.relative_to(PACKAGE).with_suffix("").parts))


FILES = {module_of(file): file for file in PACKAGE.rglob("*.py")}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_one_way(room):
    files = {module: file for module, file in FILES.items() if room_of(module) == room}
    files = {m: f for m, f in files.items() if f.name not in ("__main__.py", "__init__.py")}
    assert files, f"there is no room {room}"
    for module, file in files.items():
        for other in imported(file):
            allowed = {room, *GROUND, *MAY_IMPORT[room]}
            assert room_of(other) in allowed, f"{module} imports {other}"


def inner_room_of(module: str) -> str:
    """`inference/report/parts` for ppl_cnn.inference.report.parts and its modules."""
    path = module.split(".")[1:]
    return "/".join(path if PACKAGE.joinpath(*path).is_dir() else path[:-1])


@pytest.mark.parametrize("room", INNER)
def test_imports_within_a_room_run_one_way(room):
    outer = room.rpartition("/")[0]
    files = {module: file for module, file in FILES.items() if inner_room_of(module) == room}
    assert files, f"there is no room {room}"
    for module, file in files.items():
        of_outer = {inner_room_of(other) for other in imported(file) if room_of(other) == outer}
        assert of_outer <= {room, *INNER[room]}, module


@pytest.mark.parametrize("room", sorted({file.parent for file in FILES.values()}))
def test_a_room_can_be_taken_in_at_a_glance(room):
    assert sum(each.is_file() for each in room.iterdir()) <= MOST_FILES


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_imports_nothing_of_ours(name):
    """But for the errors."""
    assert {*imported(PACKAGE / f"{name}.py")} <= {"ppl_cnn.errors"}


def test_no_two_modules_import_each_other_in_a_circle():
    graph = {module: {m for m in imported(file) if m in FILES} for module, file in FILES.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join((*path[path.index(module) :], module))}"
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("command", ["sample", "pretrain", "evidence", "report", "units"])
def test_commands_are_imported_by_none(command):
    for module, file in FILES.items():
        assert f"ppl_cnn.{command}" not in set(imported(file)), module
