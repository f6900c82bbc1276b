"""Options made from the fields of a dataclass, each absent unless it is given."""

from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypedDict, cast, get_type_hints

import tyro
from docstring_parser import parse_from_object

from ppl_cnn.errors import with_options


def overrides_of(kind: type, *, unset: str | None = None) -> Any:
    """A type for tyro whose options are a dataclass's fields, and whose value holds those given.

    An option has the field's name, type and docstring. A field's metadata may say more:
    "choices" are the only values that the option takes, and "lists" is a sentence that is appended
    to its help. The dataclass is not made here, so that the command can report what it refuses.

    Args:
        kind: the dataclass.
        unset: what the help says of an option's default; by default the field's default.

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Point:
        ...     x: float
        ...     y: float
        >>> tyro.cli(overrides_of(Point, unset="(the origin's)"), args=["--y", "2"])
        {'y': 2.0}
    """
    assert is_dataclass(kind)
    said = {param.arg_name: param.description or "" for param in parse_from_object(kind).params}
    types = get_type_hints(kind)
    options: dict[str, Any] = {}
    for field in fields(kind):
        choices = field.metadata.get("choices")
        text = " ".join(f"{said.get(field.name, '')} {field.metadata.get('lists', '')}".split())
        options[field.name] = Annotated[
            tyro.extras.literal_type_from_choices(choices) if choices else types[field.name],
            tyro.conf.arg(
                help=with_options(text), help_behavior_hint=unset or f"(default: {field.default})"
            ),
        ]
    return cast(Any, TypedDict)(f"{kind.__name__}Overrides", options, total=False)
