"""Two runs side by side: what differs in their settings, and the units that both have."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppl_cnn.errors import FileError, InputError, MismatchError, RunFolderError
from ppl_cnn.inference.diagnostics.comparison import Comparison
from ppl_cnn.inference.diagnostics.diagnose import Diagnosis, diagnose
from ppl_cnn.inference.runs.record import ARGUMENTS, read_record, same_setting, unit_folder

_NO_SETTINGS = ("kind", "unit", "units", "block", "side_by_side", "part_of")
"""Fields of a record's configuration that say what was sampled, or how it was divided."""
_FIELDS = {
    "draws": "draws",
    "device": "device",
    "opened": "{}, as opened",
    "preprocessing": "preprocessing {}",
    "versions": "version of {}",
}
"""Further fields of a record -> what a difference in one of their entries is called."""


class Difference(NamedTuple):
    """A setting, or a package's version, that differs; None where a run has none."""

    name: str
    one: Any
    other: Any


class Figure(NamedTuple):
    """A number of both runs, as text."""

    name: str
    one: str
    other: str


class Pair(NamedTuple):
    """A unit of both runs."""

    unit: str
    """Its name in the first run."""
    other_unit: str
    """Its name in the other."""
    one: Diagnosis | InputError
    """Its diagnosis in the first run, or why there is none."""
    other: Diagnosis | InputError
    """Its diagnosis in the other, or why there is none."""

    @property
    def title(self) -> str:
        """The unit, by both names if they differ."""
        same = self.unit == self.other_unit
        return self.unit if same else f"{self.unit} and {self.other_unit}"

    @property
    def comparison(self) -> Comparison | None:
        """How their estimates compare; None unless both are of one density."""
        if not isinstance(self.one, Diagnosis) or not isinstance(self.other, Diagnosis):
            return None
        try:
            return Comparison.of(self.one, self.other)
        except MismatchError:
            return None

    @property
    def figures(self) -> list[Figure]:
        """Response, size and cost of both."""
        one, other = map(_figures, (self.one, self.other))
        return [Figure(name, one.get(name, "–"), other.get(name, "–")) for name in one | other]


class SideBySide(NamedTuple):
    """Two runs, by their records; draws are read unit by unit."""

    one: Path
    other: Path
    differences: tuple[Difference, ...]
    """The settings and versions that differ."""
    matched: tuple[tuple[str, str], ...]
    """The units that both runs have, by their names in each."""
    alone: tuple[str, ...]
    """The units that only the first run has."""
    other_alone: tuple[str, ...]
    """The units that only the other has."""

    @classmethod
    def of(cls, one: Path, other: Path) -> "SideBySide":
        """Puts two runs side by side.

        Units match by their names; without the place, which moves with an image's size; or by the
        name of their class. Two runs of one unit each match in any case.

        Args:
            one: a run of `python -m ppl_cnn.sample`, finished or not.
            other: another one.

        Raises:
            RunFolderError: a folder holds no run, or one of another kind.
            MismatchError: no unit of one is a unit of the other.
        """
        records = _record(one), _record(other)
        units, theirs = map(_units, records)
        matched = _matched(records, units, theirs)
        if not matched:
            raise MismatchError(
                f"{one} and {other} have no unit in common: {_few(units)} and {_few(theirs)}. Give "
                f"runs of the same units."
            )
        ours, others = ({names[side] for names in matched} for side in (0, 1))
        return cls(
            one,
            other,
            tuple(_differences(*records)),
            tuple(matched),
            tuple(unit for unit in units if unit not in ours),
            tuple(unit for unit in theirs if unit not in others),
        )

    def pairs(self) -> Iterator[Pair]:
        """The units that both have, diagnosed one after the other."""
        for unit, other in self.matched:
            yield Pair(unit, other, _diagnosed(self.one, unit), _diagnosed(self.other, other))


def _record(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    if record["config"].get("kind") != "sampling":
        raise RunFolderError(
            f"{folder} holds no run of `python -m ppl_cnn.sample`, but one of another kind.",
            path=folder,
        )
    return record


def _units(record: Mapping[str, Any]) -> list[str]:
    config = record["config"]
    return [str(unit) for unit in config.get("units") or [config.get("unit", "")]]


def _few(units: Sequence[str]) -> str:
    return ", ".join(units[:3]) + (f" and {len(units) - 3} more" if len(units) > 3 else "")


def _matched(
    records: tuple[Mapping[str, Any], Mapping[str, Any]], units: list[str], others: list[str]
) -> list[tuple[str, str]]:
    """The units of both runs, in the first one's order."""
    if len(units) == len(others) == 1:
        return [(units[0], others[0])]
    found: dict[str, str] = {}
    for kind in range(3):
        ours, theirs = _by_key(records[0], units, kind), _by_key(records[1], others, kind)
        taken = set(found.values())
        for key, unit in ours.items():
            if unit not in found and key in theirs and theirs[key] not in taken:
                found[unit] = theirs[key]
    return [(unit, found[unit]) for unit in units if unit in found]


def _by_key(record: Mapping[str, Any], units: Sequence[str], kind: int) -> dict[str, str]:
    """Key -> the only unit with it: 0 the name, 1 that without a place, 2 the class's name."""
    classes = record.get("classes", {})
    keys = [(unit, unit.partition("@")[0], classes.get(unit, ""))[kind] for unit in units]
    counts = Counter(keys)
    return {key: unit for key, unit in zip(keys, units, strict=True) if key and counts[key] == 1}


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Difference]:
    # The digest is of the units' own weights, so that of other units always differs.
    left_out = _NO_SETTINGS if _units(one) == _units(other) else (*_NO_SETTINGS, "weights")
    for name in {**one["config"], **other["config"]}:
        ours, theirs = one["config"].get(name), other["config"].get(name)
        if name not in left_out and not same_setting(name, ours, theirs):
            yield Difference(ARGUMENTS.get(name, name).replace("_", " "), ours, theirs)
    for field, told in _FIELDS.items():
        ours, theirs = (_entries(record, field) for record in (one, other))
        for name in {**ours, **theirs}:
            if ours.get(name) != theirs.get(name):
                yield Difference(told.format(name), ours.get(name), theirs.get(name))


def _entries(record: Mapping[str, Any], field: str) -> dict[str, Any]:
    """A field's entries; of `opened` those that the configuration hasn't told."""
    value = record.get(field)
    entries: dict[str, Any] = value if isinstance(value, dict) else {field: value}
    return {name: entry for name, entry in entries.items() if (field, name) != ("opened", "model")}


def _diagnosed(folder: Path, unit: str) -> Diagnosis | InputError:
    """A unit's diagnosis, or why there is none."""
    own = folder / unit_folder(unit) if "units" in read_record(folder)["config"] else folder
    if not (own / "run.json").exists():
        return FileError("This unit has not been sampled yet.", path=own)
    try:
        return diagnose(own, maps=False)
    except InputError as error:
        return error


def _figures(found: Diagnosis | InputError) -> dict[str, str]:
    if not isinstance(found, Diagnosis):
        return {}
    row, cost = found.summary.loc["response"], found.efficiency
    figures = {
        "mean response": f"{row['mean']:.4g} ± {row['mcse_mean']:.2g}",
        "sd of the response": f"{row['sd']:.3g} ± {row['mcse_sd']:.2g}",
        "draws": f"{found.chains} x {found.draws:,}",
    }
    if found.log_z is not None:
        figures["log Z"] = str(found.log_z.estimate)
    if cost.draws_per_second is not None:
        figures["draws per second"] = f"{cost.draws_per_second:,.1f}"
    if cost.gradients_per_effective_draw is not None:
        figures["gradients per effective draw"] = f"{cost.gradients_per_effective_draw:,.1f}"
    return figures
