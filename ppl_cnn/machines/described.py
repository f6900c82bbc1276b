"""GPUs that a program can be compiled for without having one.

XLA compiles for a description of a GPU: its units, memory and caches. No program runs, so that
nothing is known of its speed or of the kernels that a GPU chooses by trying them out.
"""

import re
from dataclasses import dataclass
from typing import Any

from ppl_cnn.errors import ArgumentError, InputError


@dataclass(frozen=True)
class GPU:
    """What XLA asks of a GPU."""

    name: str
    capability: tuple[int, int]
    cores: int
    """Streaming multiprocessors."""
    fpus: int
    """Units for float32 in each of them."""
    shared: int
    """Bytes of shared memory of a multiprocessor."""
    shared_optin: int
    """Bytes of it that one block may have."""
    memory: int
    """Bytes."""
    bandwidth: int
    """Bytes a second of the memory."""
    cache: int
    """Bytes of the second-level cache."""
    clock: float
    """GHz."""

    @property
    def text(self) -> str:
        """The description, as XLA's `GpuTargetConfigProto` in text."""
        major, minor = self.capability
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: {self.shared}
  shared_memory_per_block_optin: {self.shared_optin}
  core_count: {self.cores} fpus_per_core: {self.fpus} clock_rate_ghz: {self.clock}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {self.bandwidth} l2_cache_size: {self.cache}
  device_memory_size: {self.memory}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 12 minor: 9 }}
device_description_str: "{self.name}"
"""


_HOPPER = {"capability": (9, 0), "cores": 132, "fpus": 128, "shared": 233472}
GPUS = {
    "a100": GPU(
        "NVIDIA A100-SXM4-80GB",
        capability=(8, 0),
        cores=108,
        fpus=64,
        shared=167936,
        shared_optin=166912,
        memory=84_974_239_744,
        bandwidth=2_039_000_000_000,
        cache=41_943_040,
        clock=1.41,
    ),
    "h100": GPU(
        "NVIDIA H100 80GB HBM3",
        **_HOPPER,
        shared_optin=232448,
        memory=84_929_347_584,
        bandwidth=3_352_320_000_000,
        cache=52_428_800,
        clock=1.98,
    ),
    "h200": GPU(
        "NVIDIA H200",
        **_HOPPER,
        shared_optin=232448,
        memory=150_754_820_096,
        bandwidth=4_800_000_000_000,
        cache=62_914_560,
        clock=1.98,
    ),
}
"""Name -> GPU."""


@dataclass(frozen=True)
class Machine:
    """Hosts with GPUs of one kind."""

    gpu: GPU
    hosts: int
    gpus: int
    """GPUs of each host."""

    @classmethod
    def parse(cls, text: str) -> "Machine":
        """The machine that a text stands for: h200, h100:8, or h100:2x8 for two hosts of eight.

        Raises:
            ArgumentError: it stands for none.

        Examples:
            >>> machine = Machine.parse("h100:2x8")
            >>> machine.gpu.name, machine.hosts, machine.gpus
            ('NVIDIA H100 80GB HBM3', 2, 8)
        """
        found = re.fullmatch(r"(\w+)(?::(?:([1-9]\d*)x)?([1-9]\d*))?", text)
        if found is None or found[1] not in GPUS:
            raise ArgumentError(
                f"`for` must be one of {', '.join(GPUS)}, alone or with a number of GPUs such as "
                f"h100:8 or h100:2x8, not {text!r}.",
                argument="for",
            )
        return cls(GPUS[found[1]], int(found[2] or 1), int(found[3] or 1))

    def __str__(self) -> str:
        of_hosts = f"{self.hosts} hosts of " if self.hosts > 1 else ""
        return f"{of_hosts}{self.gpus} x {self.gpu.name}"

    def devices(self) -> list[Any]:
        """JAX's devices that programs are compiled for; nothing can be put on them.

        Raises:
            InputError: JAX's CUDA plugin is not installed here.
        """
        from jax.experimental import topologies

        try:
            described = topologies.get_topology_desc(
                platform="cuda",
                topology=f"1x{self.hosts}x{self.gpus}",
                target_config=self.gpu.text,
            )
        except (RuntimeError, NotImplementedError) as error:
            raise InputError(
                f"Programs for a GPU are compiled by JAX's CUDA plugin, which can't be used here "
                f"({str(error).splitlines()[0][:80]}). "
                "Install ppl_cnn[cuda-compile]; it needs no GPU."
            ) from None
        return list(described.devices)
