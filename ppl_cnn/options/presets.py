"""Presets: option values that belong together, named by `--preset`."""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class FromPreset(enum.Enum):
    """What stands for the value of an option that isn't given: the preset has the value."""

    PRESET = "preset"


FROM_PRESET = FromPreset.PRESET


class Preset(NamedTuple):
    """Values of the options that a preset sets.

    `target`, `warps` and `smooth` make the score, `size` the image, and `reference` and
    `temperature` the density. Chains begin at `start` and move by `kernel`, whose text has the step
    at which adaptation begins; it adapts for `warmup` transitions, then each chain keeps `draws`
    draws. None stands for the network's own size, for the command's usual start and for the kernel
    that fits the density.
    """

    target: str
    warps: int
    smooth: float
    size: int | None
    reference: str
    temperature: float
    start: str | None
    kernel: str | None
    warmup: int
    draws: int


AUTO = "auto"
"""The text of a reference that stands for the network's own, or the published one."""

DEFAULTS = Preset(
    target="auto",
    warps=0,
    smooth=0.0,
    size=None,
    reference=AUTO,
    temperature=1.0,
    start=None,
    kernel=None,
    warmup=200,
    draws=500,
)
"""What commands take without a preset."""

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # Its Stein mean says most, and rests on a gradient for each draw.
        "published": DEFAULTS._replace(
            target="logit", reference="white:10", kernel="split(moves=trajectories)"
        ),
        "vivid": Preset(
            target="soft-log-prob:10",
            warps=4,
            smooth=0.0,
            size=160,
            reference="bounded:spectral@12",
            temperature=0.0005,
            start="rto",
            kernel="split(moves=trajectories, step_size=0.006, angle=0.15)",
            warmup=3,
            draws=4,
        ),
    }
)
"""`published` is the setting of Dai, Lu and Wu (ICLR 2015). `vivid` is tuned for class images of
squeezenet1.1 that another network recognises; they are optima with the reference's noise about
them, and its few transitions make no draws of the density."""


def resolved(preset: str | None, given: Mapping[str, Any]) -> Preset:
    """The values in force: those given, else the preset's.

    Args:
        preset: a key of `PRESETS`; None stands for `DEFAULTS`.
        given: option -> its value, or `FROM_PRESET`.

    Examples:
        >>> resolved("vivid", {"warps": 2, "size": FROM_PRESET}).warps
        2
        >>> resolved("vivid", {"warps": 2, "size": FROM_PRESET}).size
        160
    """
    values = DEFAULTS if preset is None else PRESETS[preset]
    return values._replace(
        **{name: value for name, value in given.items() if value is not FROM_PRESET}
    )


def default_hint(option: str, none: str = "None") -> str:
    """What `--help` says of an option's default, with the values of presets that differ from it.

    Args:
        option: a field of `Preset`.
        none: what stands for the value None.

    Examples:
        >>> default_hint("warps")
        '(default: 0; vivid: 4)'
    """
    usual = getattr(DEFAULTS, option)
    others = {name: getattr(preset, option) for name, preset in PRESETS.items()}
    differing = {name: value for name, value in others.items() if value != usual}
    told = {"default": usual, **differing}
    values = (f"{name}: {none if value is None else value}" for name, value in told.items())
    return f"({'; '.join(values)})"
