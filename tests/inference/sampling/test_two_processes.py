"""Two processes of two devices sample as one process of four, to one store."""

import json
import multiprocessing
import os
import signal
import socket
import time

import numpy as np
import pytest
import zarr

from ppl_cnn.errors import ArgumentError, RunFolderError
from ppl_cnn.inference.runs.record import read_record
from ppl_cnn.inference.runs.store import open_draws

SCRIPT = """
import os, sys, jax
sys.stdout = sys.stderr = open(said, "w")
jax.config.update("jax_num_cpu_devices", devices)
import ppl_cnn
from ppl_cnn.errors import InputError
from ppl_cnn.inference.kernels.registry import parse_kernel
from ppl_cnn.inference.sampling import driver, group
from ppl_cnn.inference.sampling.evidence.evidence import evidence, evidence_of_images
from ppl_cnn.inference.sampling.methods import method_for
from ppl_cnn.inference.sampling.resampling.settings import Resampling
from ppl_cnn.inference.sampling.settings import Sampling
from ppl_cnn.inference.sampling.starts.registry import parse_start
from ppl_cnn.machines.processes import Processes

group.SAVE_SECONDS = 0.0
processes = Processes()
if count > 1:
    processes = Processes(f"127.0.0.1:{port}", index, count)
os.chdir(at)

def full(self, *block, original=group.DrawStore.write_chunks, **chain):
    original(self, *block, **chain)
    raise OSError(28, "No space left on device")

def run(out, *, units=3, chains=4, draws=12, start="prior", evidently=False, fails=None, **_):
    if fails == index:
        group.DrawStore.write_chunks = full
    if evidently:
        few = {"rungs": 3, "draws": 8, "warmup": 6, "particles": 6, "temperatures": 5}
        evidence(densities[:units], **few, chains=chains, out=out, progress=False)
        return
    settings = Sampling(chains=chains, warmup=8, start=parse_start(start))
    driver.sample_to(densities[:units], settings, driver.Path(out), draws=draws, progress=False)

def weigh(out, *, seen=False, units=2, kernel="resample", evidently=False, **_):
    if seen:
        images = ppl_cnn.Empirical("fashion-embedded", "test[:70]")
        some = [ppl_cnn.EmpiricalDensity(each, images) for each in named[:units]]
    else:
        noise = ppl_cnn.WhiteNoise(10.0)
        some = [ppl_cnn.TiltedDensity(each, noise, temperature=60.0) for each in named[:units]]
    if evidently:
        evidence_of_images(some, out=out, progress=False)
        return
    settings = Resampling(kernel=method_for(some[0], kernel), chains=2)
    driver.sample_to(some, settings, driver.Path(out), draws=9, progress=False)

with processes.together():
    named = ppl_cnn.load("alexnet-fashion").units("conv1:0-2")
    densities = [ppl_cnn.TiltedDensity(unit, ppl_cnn.WhiteNoise(10.0)) for unit in named]
    for given in runs:
        try:
            (weigh if "weighs" in given else run)(**given)
        except InputError as error:
            if "fatal" in given:
                raise
            print(f"{type(error).__name__}: {error}", flush=True)
"""

# Runs are forked from a process that has imported all that and has neither threads nor a backend.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["ppl_cnn.inference.sampling.driver", "ppl_cnn.models.trained.loading", "numpyro", "zarr"]
)


def start(folder, *runs, devices=4, port=0, index=0, count=1, at=None):
    names = {"runs": runs, "devices": devices, "port": port, "index": index, "count": count}
    names |= {"at": str(at or folder), "said": str(folder / f"said-{index}.txt")}
    process = FORKS.Process(target=exec, args=(SCRIPT, names))
    process.start()
    return process


def start_pair(folder, *runs, apart=False, **options):
    """Two processes of two devices each; maybe in folders of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [folder / str(index) if apart else folder for index in (0, 1)]
    for place in places:
        place.mkdir(exist_ok=True)
    return [
        start(folder, *runs, devices=2, port=port, index=index, count=2, at=place, **options)
        for index, place in enumerate(places)
    ]


def ended(*processes):
    """The exit codes; of a signal, its number times -1."""
    for process in processes:
        process.join(240)
    return [process.exitcode for process in processes]


def said(folder, index):
    return (folder / f"said-{index}.txt").read_text()


def assert_same_draws(one, other):
    trees = [zarr.open_group(folder / "draws.zarr", mode="r") for folder in (one, other)]
    names = [{n for n, _ in tree.members(max_depth=None)} for tree in trees]
    assert names[0] == names[1]
    arrays = [name for name in names[0] if isinstance(trees[0][name], zarr.Array)]
    assert "posterior/image" in arrays
    for name in arrays:
        np.testing.assert_array_equal(trees[0][name][...], trees[1][name][...], err_msg=name)
    records = [read_record(folder) for folder in (one, other)]
    for field in ("gradients", "importance"):
        assert records[0].get(field) == records[1].get(field)


def unit_folders(run):
    return sorted(folder for folder in run.iterdir() if (folder / "draws.zarr").is_dir())


@pytest.mark.long
def test_two_processes_of_two_devices_draw_what_one_of_four_does(tmp_path):
    """The second of three units lies in both; then two processes can't take three chains."""
    runs = ({"out": "run"}, {"out": "none", "units": 1, "chains": 3})
    whole, pair = tmp_path / "whole", tmp_path / "pair"
    for folder in (whole, pair):
        folder.mkdir()
    alone = start(whole, runs[0])
    assert ended(*start_pair(pair, *runs), alone) == [0, 0, 0]
    folders = [unit_folders(folder / "run") for folder in (whole, pair)]
    assert len(folders[0]) == len(folders[1]) == 3
    for one, other in zip(*folders, strict=True):
        assert one.name == other.name
        assert_same_draws(one, other)
    assert open_draws(folders[1][0] / "draws.zarr")["posterior/image"].encoding["chunks"][0] == 2
    for index in (0, 1):
        assert ArgumentError.__name__ in said(pair, index)
        assert "`chains=3`" in said(pair, index)
    assert not (pair / "none").exists()


STARTED = [{"out": name, "units": 1, "start": name} for name in ("rto:9", "anneal:4")]
STARTED.append({"out": "evidence", "units": 2, "evidently": True})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that nothing disturbed, by one process of four devices."""
    folder = tmp_path_factory.mktemp("whole")
    runs = [{"out": "prior", "units": 1, "draws": 400}, *STARTED]
    assert ended(start(folder, *runs)) == [0]
    return folder


@pytest.mark.long
@pytest.mark.parametrize("told", [(signal.SIGKILL, signal.SIGKILL), (None, signal.SIGTERM)])
def test_stopped_and_resumed_they_end_with_the_same_bits(whole, tmp_path, told):
    run = {"out": "run", "units": 1, "draws": 400}
    pair = start_pair(tmp_path, run)
    store = tmp_path / "run" / "draws.zarr"
    while not store.exists() or not open_draws(store)["posterior"].sizes["draw"]:
        assert all(process.is_alive() for process in pair)
        time.sleep(0.05)
    for process, number in zip(pair, told, strict=True):
        if number is not None:
            os.kill(process.pid, number)
    assert 0 not in ended(*pair)
    if told[0] is None:  # by name, or by what Gloo noticed sooner
        assert "Start the same command in all processes" in said(tmp_path, 0)
    assert open_draws(store)["posterior"].sizes["draw"] < 400
    assert ended(*start_pair(tmp_path, run)) == [0, 0]
    assert_same_draws(whole / "prior", tmp_path / "run")


@pytest.mark.long
def test_starts_and_log_z_are_shared_out(whole, tmp_path):
    assert ended(*start_pair(tmp_path, *STARTED)) == [0, 0]
    for name in ("rto:9", "anneal:4"):
        assert_same_draws(whole / name, tmp_path / name)
    assert (
        read_record(whole / "anneal:4")["annealing"]
        == read_record(tmp_path / "anneal:4")["annealing"]
    )
    found = [json.loads((f / "evidence/evidence.json").read_text()) for f in (whole, tmp_path)]
    assert found[0] == found[1]


WEIGHED = [
    {"weighs": True, "out": "noise", "kernel": "resample:1001"},
    {"weighs": True, "out": "images", "seen": True, "units": 1},
    {"weighs": True, "out": "mean", "seen": True, "evidently": True},
]


@pytest.mark.long
def test_proposals_and_images_are_weighed_by_all(tmp_path):
    """Numbers of proposals that two processes don't divide; a rerun finds all draws."""
    whole, pair = tmp_path / "whole", tmp_path / "pair"
    for folder in (whole, pair):
        folder.mkdir()
    few = {"weighs": True, "out": "few", "kernel": "resample:20", "fatal": True}
    alone = start(whole, *WEIGHED)
    assert ended(*start_pair(pair, *WEIGHED, WEIGHED[0], few), alone) == [2, 2, 0]
    assert len(unit_folders(pair / "noise")) == 2
    for one in (*unit_folders(whole / "noise"), whole / "images"):
        assert_same_draws(one, pair / one.relative_to(whole))
    found = [json.loads((folder / "mean/evidence.json").read_text()) for folder in (whole, pair)]
    assert found[0] == found[1]
    told = said(pair, 1)
    assert "Process 0 of 2 has failed (Of the weights of 20 draws" in told


@pytest.mark.long
@pytest.mark.parametrize("index", [0, 1])
def test_the_end_of_one_process_ends_the_other(tmp_path, index):
    """Where a disk is full, which the writing thread finds, while the other's waits for it."""
    run = {"out": "run", "units": 1, "draws": 10_000, "fails": index}
    assert ended(*start_pair(tmp_path, run)) == [2, 2]
    told = said(tmp_path, 1 - index)
    assert f"Process {index} of 2 has failed ([Errno 28] No space left on device)" in told
    assert not open_draws(tmp_path / "run" / "draws.zarr")["posterior"].sizes["draw"]


@pytest.mark.long
def test_folders_that_not_all_see_and_stores_of_one_process_are_refused(tmp_path):
    alone = {"out": str(tmp_path / "alone"), "units": 1}
    assert ended(start(tmp_path, alone, devices=1)) == [0]
    runs = [{"out": "run"}, {**alone, "draws": 20, "fatal": True}]
    assert ended(*start_pair(tmp_path, *runs, apart=True)) == [2, 2]
    for index in (0, 1):
        unseen = said(tmp_path, index).splitlines()[0]
        assert unseen.startswith(f"{RunFolderError.__name__}: Process 1 doesn't see")
        assert str(tmp_path / str(index) / "run") in unseen
    shared = said(tmp_path, 1).splitlines()[-1]
    assert shared.startswith("error: Process 0 of 2 has failed (A file of")
    assert "has the draws of 4 chains, which 2 processes can't write" in shared
