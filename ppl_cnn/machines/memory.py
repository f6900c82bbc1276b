"""The memory of devices that have one of their own."""


def own_room() -> int:
    """Half of the bytes that a device here may use of a memory of its own; 0 on a CPU.

    The other half is left for weights, blocks of draws and what is fragmented.
    """
    import jax

    return int((jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)) // 2
