"""Machines with GPUs as XLA describes them, for which programs compile where there is no GPU."""
