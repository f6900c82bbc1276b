"""The published weights of declared networks: where they are, how they are fetched and checked."""

import os
from pathlib import Path
from typing import NamedTuple

from ppl_cnn.errors import FileError, UnknownNameError


class Published(NamedTuple):
    """A file of weights on its publisher's server."""

    url: str
    checksum: str
    """The checksum of the whole file, as "algorithm:digits"."""

    @property
    def file(self) -> str:
        """The file's name."""
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
    "vgg16_bn": Published(
        "https://download.pytorch.org/models/vgg16_bn-6c64b313.pth",
        "sha256:6c64b3138f2f4fcb3bcc4cafde11619c4f440eb1631787e93a682fd88305888a",
    ),
    "squeezenet1.1": Published(
        "https://github.com/forresti/SqueezeNet/raw/a47b6f13d30985279789d08053d37013d67d131b/"
        "SqueezeNet_v1.1/squeezenet_v1.1.caffemodel",
        "sha256:72b912ace512e8621f8ff168a7d72af55910d3c7c9445af8dfbff4c2ee960142",
    ),
    "googlenet": Published(
        "https://download.pytorch.org/models/googlenet-1378be20.pth",
        "sha256:1378be20a8e875cf1568b8a71654e704449655e34711a959a38b04fb34905cef",
    ),
    "resnet18": Published(
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "sha256:f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
    "resnet34": Published(
        "https://download.pytorch.org/models/resnet34-b627a593.pth",
        "sha256:b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    ),
    "resnet50": Published(
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "sha256:0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
    "resnet101": Published(
        "https://download.pytorch.org/models/resnet101-63fe2227.pth",
        "sha256:63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
    ),
    "resnet152": Published(
        "https://download.pytorch.org/models/resnet152-394f9c45.pth",
        "sha256:394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
    ),
    "wide_resnet50_2": Published(
        "https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth",
        "sha256:95faca4d11227dddf8633dbb5ff6c8a9003c1aa5b8945c73834b8007b10950b8",
    ),
    "mobilenet_v2": Published(
        "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
        "sha256:b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    ),
}
"""Network -> its published weights.

The checksums are from public records; they were not computed here, where no file could be fetched.
Those of the Caffe files are in Intel's Open Model Zoo (models/public/*/model.yml), which gives a
SHA-384 for CaffeNet; BVLC itself publishes SHA-1 alone. Those of the PyTorch files begin with the
eight digits in torchvision's file names and stand in full in several public repositories, two at
least. Those with several sets of weights have torchvision's first, IMAGENET1K_V1.
"""


def cache_folder() -> Path:
    """The folder of fetched files: $PPL_CNN_CACHE, or ppl_cnn in the user's cache folder."""
    import pooch

    return Path(os.environ.get("PPL_CNN_CACHE") or pooch.os_cache("ppl_cnn"))


def fetch(network: str) -> Path:
    """The file of a network's published weights.

    It is fetched once and then kept in `cache_folder()`; its checksum is verified every time. A
    file that was put there by hand is used too.

    Raises:
        UnknownNameError: no published weights are known for the network.
        FileError: the file can't be fetched, or isn't the published one.
    """
    import pooch

    if network not in PUBLISHED:
        raise UnknownNameError(
            f"No published weights are known for {network}. Known: {', '.join(PUBLISHED)}.",
            name=network,
            known=PUBLISHED,
        )
    url, checksum = PUBLISHED[network]
    algorithm, digits = checksum.split(":")
    path = cache_folder() / PUBLISHED[network].file
    if not path.exists():
        _download(network, path)
    elif pooch.file_hash(path, algorithm) != digits:
        raise FileError(
            f"{path} isn't the file published at {url}, whose {algorithm} begins with "
            f"{digits[:8]}. Delete it to fetch it again.",
            path=path,
        )
    return path


def _download(network: str, path: Path) -> None:
    import pooch

    url, checksum = PUBLISHED[network]
    try:
        pooch.retrieve(url, checksum, path.name, path.parent, progressbar=True)
    except ValueError:
        raise FileError(
            f"The file that {url} gives has another checksum than the published one: it was "
            f"replaced, or damaged on the way. Put the right file at {path}.",
            path=path,
        ) from None
    except OSError as error:
        # The connection of an answer that isn't read to its end would stay open.
        if (response := getattr(error, "response", None)) is not None:
            response.close()
        raise FileError(
            f"The weights of {network} can't be fetched ({_reason(error)}). Download {url} and put "
            f"it at {path}.",
            path=path,
        ) from None


def _reason(error: OSError) -> str:
    """The HTTP status or the system's message, in a few words."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP status {status}" if status else error.strerror or type(error).__name__
