from functools import partial

import numpy as np
import pytest

from ppl_cnn.models.networks.catalogue import LENET


@pytest.fixture
def units(command):
    return partial(command, "ppl_cnn.units")


def listed(done):
    """Layer -> its line."""
    assert done.returncode == 0
    lines = done.stdout.partition("\n\n")[0].splitlines()[2:]
    return {line.split()[0]: line for line in lines}


def test_alexnets_units_are_listed_with_their_known_receptive_fields(units):
    rows = listed(units("--model", "alexnet"))
    assert list(rows) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    for layer, field in {"conv1": 11, "conv2": 51, "conv3": 99, "conv4": 131, "conv5": 163}.items():
        assert f"{field} x {field}" in rows[layer]
    assert "13 x 13" in rows["conv5"]


def test_multiplications_of_the_whole_and_of_the_slab_are_listed(units):
    rows = listed(units("--model", "alexnet"))
    # 55*55*11*11*3, and the kernel alone; then the sums that tests/models/test_units.py checks.
    assert "1.1 M      363  conv1:12" in rows["conv1"]
    assert "591.3 M  150.2 M  conv5:12" in rows["conv5"]
    assert "720.3 M  720.3 M    fc8:12" in rows["fc8"]


def test_one_layer_alone_is_listed(units):
    assert list(listed(units("--model", "squeezenet1.1", "--layer", "conv10"))) == ["conv10"]


def test_data_show_how_often_each_channel_responds(units):
    done = units("--data", "fashion-embedded", "--layer", "fc6", "--images", "300")
    row = listed(done)["fc6"]
    lines = done.stdout.partition("\n\nunit ")[2].splitlines()[1:]
    assert [line.split()[0] for line in lines] == [f"fc6:{channel}" for channel in range(256)]
    dead = [line for line in lines if line.endswith("dead")]
    assert all("0.00%" in line for line in dead)
    assert row.split()[-1] == str(len(dead))


def test_data_show_dead_channels_of_all_layers_and_name_those_without_a_nonlinearity(units):
    done = units("--data", "fashion-embedded", "--images", "50")
    rows = listed(done)
    assert "median non-zero  dead" in done.stdout
    assert rows["fc8"].endswith("no ReLU     -")
    assert all(rows[f"conv{index}"].split()[-1].isdigit() for index in range(1, 6))
    detail = units("--data", "fashion-embedded", "--images", "50", "--layer", "fc8").stdout
    assert "No nonlinearity follows fc8" in detail


def test_weights_from_a_file_show_which_channels_respond(tmp_path, random_params, units):
    params = random_params(LENET)
    params["fc3"]["bias"] -= 1e6  # so that none responds
    arrays = {f"{name}.{key}": array for name, all in params.items() for key, array in all.items()}
    np.savez(tmp_path / "lenet.npz", **arrays)
    weights = ("--model", "lenet", "--weights", str(tmp_path / "lenet.npz"))
    assert list(listed(units(*weights))) == ["conv1", "conv2", "fc3", "fc4"]
    row = listed(units(*weights, "--data", "fashion-embedded", "--images", "20"))["fc3"]
    assert row.endswith("0.00%   500")


def test_the_embedded_network_is_the_default(units):
    assert units().stdout.startswith("alexnet-fashion, images of 28 x 28 x 1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "alexnet", "--data", "fashion-embedded"], ["alexnet", "weights"]),
        (["--layer", "conv9"], ["'conv9'", "conv1, conv2"]),
        (["--data", "fashion-embedded", "--images", "0"], ["images", "not 0"]),
        (["--data", "nosuch"], ["'nosuch'"]),
        (["--model", "lenet", "--weights", "nosuch.pth"], ["nosuch.pth"]),
        (["--model", "nosuch", "--weights", "nosuch.pth"], ["'nosuch'", "lenet"]),
    ],
)
def test_what_cannot_be_listed_is_refused(arguments, words, units):
    done = units(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr


def test_an_unknown_model_is_refused_with_exit_code_2(units):
    done = units("--model", "nosuch")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "'nosuch'" in done.stderr


@pytest.mark.parametrize("option", ["pixels", "entry"])
def test_what_is_about_a_file_of_weights_needs_one(option, units):
    done = units("--model", "alexnet", f"--{option}", "raw")
    assert done.returncode == 2
    assert f"--{option} raw can't be used" in done.stderr
