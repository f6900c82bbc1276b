"""Where the weights that others have published lie, and how they are fetched and checked."""

import os
from pathlib import Path
from typing import NamedTuple

from ppl_cnn.errors import InputError


class Published(NamedTuple):
    """A file of weights on its publisher's server."""

    url: str
    checksum: str
    """ "algorithm:digits" of the whole file."""

    @property
    def file(self) -> str:
        """Its name."""
        return self.url.rpartition("/")[2]


PUBLISHED = {
    "alexnet": Published(
        "http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel",
        "sha256:4bff209a9837298157915ef50a4831a59636a6ca1a6b8ebacd990c3a5f3053e0",
    ),
    "caffenet": Published(
        "http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel",
        "sha384:6677844301d6c7f68f5b6a299cf41c4f0955bab7d1fb8719375fae6d05b6173d"
        "b9deccf3ac4aaa4225bf6c6e99d81a68",
    ),
    "alexnet-torchvision": Published(
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "sha256:7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    ),
    "vgg16": Published(
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
    "vgg16-caffe": Published(
        "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_16_layers.caffemodel",
        "sha256:a6196bc498e45ea4cb2637114ae8db9410cf1556fd60a55ae93272371beba197",
    ),
    "squeezenet1.1": Published(
        "https://github.com/forresti/SqueezeNet/raw/a47b6f13d30985279789d08053d37013d67d131b/"
        "SqueezeNet_v1.1/squeezenet_v1.1.caffemodel",
        "sha256:72b912ace512e8621f8ff168a7d72af55910d3c7c9445af8dfbff4c2ee960142",
    ),
}
"""Network -> its published weights.

The checksums are of public record and were not computed here, where none of the files could be
fetched. Those of the Caffe files are in Intel's Open Model Zoo (models/public/*/model.yml),
which gives a SHA-384 for CaffeNet; BVLC itself gives only SHA-1s. Those of the PyTorch files
begin with the eight digits that torchvision puts in their names, and stand in full in several
public repositories.
"""


def cache_folder() -> Path:
    """Where fetched files are kept: $PPL_CNN_CACHE, or the user's cache folder."""
    import pooch

    return Path(os.environ.get("PPL_CNN_CACHE") or pooch.os_cache("ppl_cnn"))


def fetch(network: str) -> Path:
    """The file of a network's published weights: fetched once, then kept; checked every time.

    A file that was put there by hand is checked and used all the same.

    Raises:
        InputError: none are known, they can't be fetched, or the file is another one.
    """
    import pooch

    if network not in PUBLISHED:
        raise InputError(
            f"No published weights are known of {network}, only of {', '.join(PUBLISHED)}."
        )
    url, checksum = PUBLISHED[network]
    algorithm, digits = checksum.split(":")
    path = cache_folder() / PUBLISHED[network].file
    if not path.exists():
        _download(network, path)
    elif pooch.file_hash(path, algorithm) != digits:
        raise InputError(
            f"{path} isn't the file that was published at {url}, whose {algorithm} begins "
            f"with {digits[:8]}: delete it, and it is fetched anew."
        )
    return path


def _download(network: str, path: Path) -> None:
    import pooch

    url, checksum = PUBLISHED[network]
    try:
        pooch.retrieve(url, checksum, path.name, path.parent, progressbar=True)
    except ValueError:
        raise InputError(
            f"What {url} gives now isn't the file that was published there, or it came damaged: "
            f"its checksum differs; put the right one at {path}."
        ) from None
    except OSError as error:
        # Not read to its end, a refusal's connection would stay open.
        if (response := getattr(error, "response", None)) is not None:
            response.close()
        raise InputError(
            f"The weights of {network} can't be fetched ({_reason(error)}): download {url} and "
            f"put it at {path}."
        ) from None


def _reason(error: OSError) -> str:
    """Why, in a few words; of a server's refusal its status."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP status {status}" if status else error.strerror or type(error).__name__
