import subprocess
import sys


def units(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ppl_cnn.units", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_alexnets_units_are_listed_with_their_known_receptive_fields():
    done = units("--model", "alexnet")
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[2:]}
    assert list(rows) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    for layer, field in {"conv1": 11, "conv2": 51, "conv3": 99, "conv4": 131, "conv5": 163}.items():
        assert f"{field} x {field}" in rows[layer]
    assert "13 x 13" in rows["conv5"]


def test_the_embedded_network_is_the_default():
    assert units().stdout.startswith("alexnet-fashion, images of 28 x 28 x 1")


def test_an_unknown_model_gets_a_sentence_and_exit_code_2():
    done = units("--model", "nosuch")
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no model 'nosuch'")
