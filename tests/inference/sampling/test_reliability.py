"""Nothing already drawn is lost, and the next run says what it found and goes on or refuses."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
import zarr

import ppl_cnn
from ppl_cnn.errors import RunFolderError
from ppl_cnn.inference.report.page import report
from ppl_cnn.inference.runs.folder import RunFolder
from ppl_cnn.inference.runs.store import open_draws
from ppl_cnn.inference.sampling.driver import sample_to
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.starts.registry import parse_start
from ppl_cnn.inference.sampling.state import draws_before

DRAWS, BLOCK = 40, 10
UNITS = ("conv1-0-at-14,14", "conv1-1-at-14,14")
GROUPS = ("posterior", "sample_stats", "stein")
KINDS = {"single": ("conv1:0", None), "each": ("conv1:0-1", 1), "together": ("conv1:0-1", 2)}
"""Units and how many side by side."""
# What `go` does, in a process that can be killed.
KILLED = """
import os, pathlib, signal, sys
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
from ppl_cnn.inference.sampling import group, program
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.driver import sample_to
import ppl_cnn
program.LONGEST_BLOCK = 10
group.SAVE_SECONDS = 0
unit, side, out, *moments = sys.argv[2:]

def run(left):
    def replace(self, target, original=pathlib.Path.replace):
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, target)
    pathlib.Path.replace = replace  # which zarr and the package rename files with
    units = ppl_cnn.load("alexnet-fashion").units(unit, "pre", "logit")
    densities = [ppl_cnn.TiltedDensity(u, ppl_cnn.WhiteNoise(10.0), 0.1) for u in units]
    sampling = Sampling(kernel=ppl_cnn.Langevin(), chains=2, warmup=10)
    side_by_side = int(side) if side != "None" else None
    sample_to(densities, sampling, pathlib.Path(out), draws=40, side_by_side=side_by_side,
              progress=False)

for moment in moments:  # forked before JAX starts its threads, so that importing is done once
    if not (child := os.fork()):
        run(int(moment))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    print("killed", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Where programs are kept that were compiled once."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module", autouse=True)
def _short_blocks_compiled_once(compiled):
    options = {
        "jax_compilation_cache_dir": str(compiled),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppl_cnn.inference.sampling.program.LONGEST_BLOCK", BLOCK)
        patch.setattr("ppl_cnn.inference.sampling.group.SAVE_SECONDS", 0.0)
        yield
    for name, value in before.items():
        jax.config.update(name, value)


def go(out, kind="single", draws=DRAWS, **options):
    text, side_by_side = KINDS[kind]
    units = ppl_cnn.load("alexnet-fashion").units(text, "pre", "logit")
    densities = [ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0), 0.1) for unit in units]
    options = {"progress": False, "side_by_side": side_by_side} | options
    # The kernel whose programs compile in the least time: any kernel's files are written alike.
    sampling = Sampling(kernel=ppl_cnn.Langevin(), chains=2, warmup=10)
    sample_to(densities, sampling, out, draws=draws, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A function of a kind to the folder of a whole run; not to be written to."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def run(kind="single"):
        if not (folder / kind).exists():
            go(folder / kind, kind)
        return folder / kind

    return run


@pytest.fixture
def ended(undisturbed, tmp_path):
    """A function of a kind to a copy of that run."""
    return lambda kind="single": shutil.copytree(undisturbed(kind), tmp_path / kind)


def stores(run):
    return sorted(run.glob("**/draws.zarr"))


def assert_whole_blocks(run, undisturbed):
    """Every store that there is holds the first blocks of an undisturbed run's."""
    for store in stores(run):
        found = open_draws(store).load()
        wanted = open_draws(undisturbed / store.relative_to(run)).load()
        draws = found["posterior"].sizes["draw"]
        assert draws % BLOCK == 0
        for group in GROUPS:
            part = {"draw": slice(draws), "block": slice(draws // BLOCK)}
            part = wanted[group].to_dataset().isel(part, missing_dims="ignore")
            xr.testing.assert_identical(found[group].to_dataset(), part)


def assert_the_same(run, undisturbed):
    assert [store.relative_to(run) for store in stores(run)] == [
        store.relative_to(undisturbed) for store in stores(undisturbed)
    ]
    for store in stores(run):
        assert open_draws(store)["posterior"].sizes["draw"] == DRAWS
    assert_whole_blocks(run, undisturbed)
    assert not list(run.rglob("*.partial"))


def contents(run):
    """A digest of every file but the record, whose command may change, and the lock."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.rglob("*")
        if path.is_file() and path.name not in ("run.json", ".lock")
    }


@pytest.mark.parametrize(
    "kind",
    ["each", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("together", "single"))],
)
@pytest.mark.long
def test_a_run_killed_at_any_write_goes_on_to_the_same_bits(kind, undisturbed, compiled, tmp_path):
    """SIGKILL just before a random rename, again and again; its file is left half written."""
    text, side_by_side = KINDS[kind]
    moments = [str(random.Random(kind).randrange(20, 90)) for _ in range(3)]
    moments[0] = "9"  # while the store is made
    run = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(compiled), text, str(side_by_side), str(run), *moments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for _ in moments:
            assert process.stdout.readline() == "killed\n"
            assert_whole_blocks(run, undisturbed(kind))
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == 0
    go(run, kind)
    assert_the_same(run, undisturbed(kind))


@contextmanager
def small_files(limit):
    """No file may grow beyond it, as on a file system with a limit; Python ignores the signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.filterwarnings("ignore:Error writing persistent compilation cache entry")
@pytest.mark.parametrize("limit", [3000, 500])
def test_a_file_that_cannot_be_written_costs_nothing(limit, undisturbed, tmp_path):
    """Chunks fail at the first limit, records too at the second."""
    go(tmp_path / "run", draws=20)
    before = open_draws(tmp_path / "run" / "draws.zarr").load()
    with small_files(limit), pytest.raises(OSError, match="File too large"):
        go(tmp_path / "run")
    xr.testing.assert_identical(open_draws(tmp_path / "run" / "draws.zarr").load(), before)
    go(tmp_path / "run")
    assert_the_same(tmp_path / "run", undisturbed())


@pytest.mark.parametrize("kind", ["single", "together"])
@pytest.mark.long
def test_a_full_disk_costs_nothing(kind, undisturbed):
    # Not in pytest's folder: there a mount that a killed test has left fails all later sessions.
    disk = Path(tempfile.mkdtemp())
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        # Room for some blocks: a run of one unit takes about 120 pages at 40 draws.
        (disk / "other").write_bytes(bytes(2**21 - (100 if kind == "single" else 190) * 4096))
        with pytest.raises(OSError, match="No space left"):
            go(disk / "run", kind)
        assert_whole_blocks(disk / "run", undisturbed(kind))
        left = [open_draws(store)["posterior"].sizes["draw"] for store in stores(disk / "run")]
        assert 0 < max(left) < DRAWS
        (disk / "other").unlink()
        go(disk / "run", kind)
        assert_the_same(disk / "run", undisturbed(kind))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        disk.rmdir()


def test_without_the_state_the_draws_are_not_overwritten(ended, refused):
    run = ended()
    (run / "state.npz").unlink()
    before = contents(run)
    with refused(
        "40 draws", "state.npz", "lost", "`out`", kind=RunFolderError, path=run / "draws.zarr"
    ):
        go(run, draws=60)
    assert contents(run) == before


def test_a_store_behind_the_state_is_refused(ended, refused, tmp_path):
    run = ended()
    state = (run / "state.npz").read_bytes()
    go(run, draws=60)
    ahead = shutil.move(run / "state.npz", tmp_path / "state.npz")
    shutil.rmtree(run)
    run = ended()
    shutil.copy(ahead, run / "state.npz")
    with refused("40 draws", "60", kind=RunFolderError, path=run / "draws.zarr"):
        go(run, draws=80)
    (run / "state.npz").write_bytes(state)
    shutil.rmtree(run / "draws.zarr")
    with refused("0 draws", "40", kind=RunFolderError, path=run / "draws.zarr"):
        go(run, draws=80)


def test_a_store_of_another_run_or_program_is_refused(ended, undisturbed, refused, tmp_path):
    run = ended()
    shutil.rmtree(run / "draws.zarr")
    shutil.copytree(undisturbed("each") / UNITS[1] / "draws.zarr", run / "draws.zarr")
    with refused("another run", kind=RunFolderError, path=run / "draws.zarr"):
        go(run, draws=60)
    shutil.rmtree(run / "draws.zarr")
    zarr.open_array(run / "draws.zarr", mode="w", shape=(3,), dtype="f4")[:] = 1
    with refused("no intact store", kind=RunFolderError, path=run / "draws.zarr"):
        go(run, draws=60)
    with refused("no intact store"):
        report(run)
    shutil.rmtree(run / "draws.zarr")
    xr.DataTree.from_dict({"posterior": xr.Dataset({"mu": ("draw", np.ones(3))})}).to_zarr(
        run / "draws.zarr", zarr_format=2
    )
    with refused("no intact store", kind=RunFolderError, path=run / "draws.zarr"):
        go(run, draws=60)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with refused("notes.txt", kind=RunFolderError, path=tmp_path / "other"):
        go(tmp_path / "other")


CHUNK = "posterior/image/c/0/1/0/0/0"


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        (CHUNK, "deleted", f"{CHUNK} is lost"),
        ("sample_stats/lp/c/0/3", "deleted", "sample_stats/lp/c/0/3 is lost"),
        ("posterior/chain/c/0", "truncated", "no intact store"),
        ("zarr.json", "deleted", "no intact store"),
        ("zarr.json", "truncated", "no intact store"),
        (CHUNK, "emptied", f"{CHUNK} is lost"),
        (CHUNK, "truncated", "image of the draws 10 to 19 can't be read"),
        (CHUNK, "changed", "image of the draws 10 to 19 can't be read"),
    ],
)
def test_a_damaged_store_is_named_and_left_alone(ended, refused, name, damage, said):
    run = ended("together")
    unit = run / UNITS[1]
    file = unit / "draws.zarr" / name
    content = file.read_bytes()
    if damage == "deleted":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "emptied":
        file.write_bytes(b"")
    else:
        file.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with refused(said):
        report(unit)
    if "can't be read" not in said:  # a chunk's content is of no concern to what follows it
        before = contents(run)
        with refused(str(unit), said):
            go(run, "together", draws=60)
        assert contents(run) == before


def test_a_deleted_flag_reads_as_set(ended):
    """Only those are written and lost without a trace."""
    run = ended()
    (run / "draws.zarr/sample_stats/diverging/c/0/1").unlink()
    diverging = open_draws(run / "draws.zarr")["sample_stats/diverging"]
    assert diverging[:, BLOCK : 2 * BLOCK].all()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"config": 3}'])
def test_a_damaged_record_is_refused(ended, refused, content):
    run = ended()
    (run / "run.json").write_text(content)
    before = contents(run)
    for action in (lambda: go(run), lambda: report(run)):
        with refused("run.json", "damaged"):
            action()
    assert contents(run) == before


def test_a_state_with_any_byte_changed_or_cut_is_refused_or_whole(ended, refused):
    state = ended() / "state.npz"
    content, rng = state.read_bytes(), random.Random(0)
    for _ in range(200):
        place = rng.randrange(len(content))
        changed = bytes([rng.randrange(256)])
        state.write_bytes(content[:place] + changed * (rng.random() < 0.9) + content[place + 1 :])
        assert draws_before(state) in (0, DRAWS)
    state.write_bytes(content[:-100])
    with refused("damaged", kind=RunFolderError, path=state):
        go(state.parent, draws=60)


def test_a_folder_that_a_run_is_writing_to_is_refused(ended, refused):
    run = ended("each")
    config = json.loads((run / "run.json").read_text())["config"]
    with RunFolder.claim(run, config, "command"), refused("Another run", run, kind=RunFolderError):
        go(run, "each")
    with refused(run, "`out`", kind=RunFolderError, path=run / UNITS[0]):
        go(run / UNITS[0])
    go(run, "each")  # the lock's file stays, but nobody holds it


def test_the_next_run_says_what_it_found(ended, capsys):
    run = ended("each")
    go(run, "each", progress=True)
    assert (
        f"{run} holds all 80 draws per chain (summed over its 2 units)" in capsys.readouterr().err
    )
    go(run, "each", draws=50, progress=True)
    assert (
        f"{run} holds 80 of 100 draws per chain (summed over its 2 units)"
        in capsys.readouterr().err
    )


def test_starts_at_a_run_that_cannot_be_used_are_refused(ended, refused, tmp_path):
    unit = ppl_cnn.load("alexnet-fashion").unit("conv1:0")
    density = ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0))
    run = ended()

    def start(folder):
        return parse_start(f"run:{folder}").latents([density], Sampling(chains=2))

    assert start(run).latents.shape == (2, *unit.shape)
    with refused("no draws", tmp_path / "nothing"):
        start(tmp_path / "nothing")
    file = run / "draws.zarr/posterior/image/c/0/3/0/0/0"
    file.write_bytes(file.read_bytes()[:-30])
    with refused("is damaged"):
        start(run)
    file.unlink()
    with refused("is lost"):
        start(run)
    for group in ("posterior", "sample_stats"):
        xr.Dataset({"mu": ("draw", np.ones(3))}).to_zarr(
            tmp_path / "other" / "draws.zarr", group=group, zarr_format=3, consolidated=False
        )
    with refused("no intact store"):
        start(tmp_path / "other")
    with pytest.warns(zarr.errors.ZarrUserWarning, match="Consolidated"):
        zarr.consolidate_metadata(tmp_path / "other" / "draws.zarr")
    with refused("lacks posterior/image"):
        start(tmp_path / "other")


@pytest.mark.long  # `tests/options` has the signals' handling
def test_a_run_told_to_stop_says_that_it_can_be_resumed(refused, tmp_path):
    run = tmp_path / "run"
    line = [sys.executable, "-m", "ppl_cnn.sample", "--unit", "conv1:0", "--reference", "white:10"]
    line += ["--chains", "2", "--warmup", "10", "--temperature", "0.1", "--out", str(run)]
    with subprocess.Popen(
        [*line, "--draws", "1000000"], stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and not draws_before(run / "state.npz"):
            time.sleep(0.05)
        with refused("Another run", run, kind=RunFolderError):
            config = json.loads((run / "run.json").read_text())["config"]
            with RunFolder.claim(run, config, "command"):
                pass
        time.sleep(1)
        os.kill(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=600)[1]
    assert process.returncode == 143
    assert said.splitlines()[-1].startswith("Stopped")
    assert "Traceback" not in said
    draws = draws_before(run / "state.npz")  # a part of them in a block that isn't whole yet
    again = [*line, "--draws", str(draws)]
    done = subprocess.run(again, capture_output=True, text=True, check=True)
    assert f"{run} holds " in done.stderr
    assert done.stdout == f"{run / 'report.html'}\n"
    # What was written after the last state stays.
    assert open_draws(run / "draws.zarr")["posterior"].sizes["draw"] >= draws
