"""What a run's record says: its settings, command, cost and versions, and advice in its terms."""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from ppl_cnn.errors import with_options
from ppl_cnn.inference.diagnostics.diagnose import ChosenMoves, Diagnosis
from ppl_cnn.inference.runs.record import ARGUMENTS
from ppl_cnn.work import FORWARD_COST


def density_text(config: Mapping[str, Any]) -> str:
    """The density that was sampled, in a sentence, as far as the settings tell.

    Args:
        config: the run's settings.
    """
    unknown = {"target": "response", "unit": "a unit", "reference": "?"}
    known = {**unknown, **config}
    temperature = _as_fraction(config["temperature"]) if "temperature" in config else "?"
    parts = [f"f the {known['target']} of {known['unit']}", *_views(config)]
    return (
        f"The density is proportional to exp(f/T) q, with {', '.join(parts)}, "
        f"T = {temperature}, q = {known['reference']}."
    )


def settings(config: Mapping[str, Any]) -> list[str]:
    """The kernel and the density's settings in a few words each, as far as they are known.

    Args:
        config: the run's settings.
    """
    parts = [f"{config['kernel']} kernel"] if "kernel" in config else []
    if config.get("target", "logit") != "logit":
        parts.append(f"target {config['target']}")
    parts += _views(config)
    if "reference" in config:
        parts.append(f"reference {config['reference']}")
    if "temperature" in config:
        parts.append(f"T = {_as_fraction(config['temperature'])}")
    return parts


def _views(config: Mapping[str, Any]) -> list[str]:
    """How the network saw the images, if not as they are."""
    parts = []
    if "warps" in config:
        smooth = f" with noise {config['smooth']:g}" if config.get("smooth") else ""
        parts.append(f"mean over {config['warps']} warps{smooth}")
    if "size" in config:
        parts.append(f"at {config['size']}x{config['size']}")
    return parts


def _as_fraction(temperature: float) -> str:
    """Writes 0.001 as 1/1000, and what is no fraction of 1 by a whole number as it is."""
    inverse = 1 / temperature
    if inverse > 1.5 and math.isclose(inverse, round(inverse), rel_tol=1e-9):
        return f"1/{round(inverse)}"
    return f"{temperature:g}"


def advice_html(text: str, record: Mapping[str, Any]) -> str:
    """A text whose arguments stand in backticks, in the terms in which the run was started.

    `warmup=400` becomes --warmup 400 for a run of a command; for a run that Python started, such
    as one of `ppl_cnn.draw`, it stays as it is.

    Args:
        text: a verdict's sentence, or an error's message.
        record: the run's.
    """
    by_command = str(record.get("command", "")).startswith("python -m ")
    parts = text.split("`")
    for number in range(1, len(parts), 2):
        argument = with_options(f"`{parts[number]}`") if by_command else parts[number]
        parts[number] = f"<code>{escape(argument.strip('`'))}</code>"
    parts[::2] = map(escape, parts[::2])
    return "".join(parts)


def facts_html(diagnosis: Diagnosis) -> str:
    """The tables of configuration, cost and versions, and the command.

    Args:
        diagnosis: the run's.
    """
    groups = (
        ("Configuration", _configuration(diagnosis)),
        ("Time and cost", _cost(diagnosis)),
        ("Versions", diagnosis.record.get("versions", {})),
    )
    columns = "\n".join(
        f'<table class="data"><caption>{title}</caption><tbody>\n{_rows(facts)}\n</tbody></table>'
        for title, facts in groups
        if facts
    )
    return f'<div class="columns">\n{columns}\n</div>\n{command_html(diagnosis.record)}'


def command_html(record: Mapping[str, Any]) -> str:
    """The command that started the run; empty if it isn't known.

    Args:
        record: the run's.
    """
    if "command" not in record:
        return ""
    return f'<pre tabindex="0" aria-label="Command">{escape(str(record["command"]))}</pre>'


def _rows(facts: Mapping[str, Any]) -> str:
    return "\n".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )


def _configuration(diagnosis: Diagnosis) -> dict[str, Any]:
    record = diagnosis.record
    facts = {
        ARGUMENTS.get(name, name).replace("_", " "): value
        for name, value in diagnosis.config.items()
    }
    if "recipe" in record:  # the field is older than the option's name
        facts["preset"] = record["recipe"]["name"]
    for name, (first, last) in zip(("rows", "columns"), diagnosis.window, strict=True):
        facts[f"image {name}"] = f"{first} to {last}"
    for name, value in record.get("preprocessing", {}).items():
        facts[f"preprocessing {name}"] = value
    return facts


def _cost(diagnosis: Diagnosis) -> dict[str, str]:
    record, worth = diagnosis.record, diagnosis.efficiency
    draws = diagnosis.chains * diagnosis.draws
    facts = {f"seconds, {name}": f"{it:,.1f}" for name, it in record.get("seconds", {}).items()}
    facts |= {f"gradients, {name}": f"{it:,}" for name, it in record.get("gradients", {}).items()}
    passes = record.get("forward_passes", {})
    facts |= {f"forward passes, {name}": f"{it:,}" for name, it in passes.items()}
    if worth.draws_per_second is not None:
        facts["draws per second"] = f"{worth.draws_per_second:,.1f}"
    if worth.gradients_per_second is not None:
        facts["gradients per second"] = f"{worth.gradients_per_second:,.0f}"
    if worth.effective_draws is not None:
        ess = f"{worth.effective_draws:,.0f} of {draws:,}"
        facts["effective draws of the response (bulk)"] = ess
    if worth.forward_passes is not None:
        facts["forward passes, sampling"] = f"{worth.forward_passes:,}"
    if worth.gradients_per_effective_draw is not None:
        facts["gradients per effective draw"] = f"{worth.gradients_per_effective_draw:,.1f}"
        if worth.forward_passes is not None:
            ratio = f" (a forward pass counts as {FORWARD_COST:.2g})"
            facts["gradients per effective draw"] += ratio
    if worth.moves is not None:
        facts["moves"] = moves_text(worth.moves)
    for name, mean in worth.transitions.items():
        facts[f"{name.replace('_', ' ')}, mean"] = f"{mean:.3g}"
    return facts


def moves_text(moves: ChosenMoves) -> str:
    """Which moves a kernel chose, and what its warm-up expected of them.

    Args:
        moves: of the run.
    """
    if math.isnan(moves.worth_of_turns):
        return "trajectories: the warm-up is too short to choose"
    fresh = "draws from pools of fresh draws of the reference", moves.worth_of_fresh
    turns = "turns without gradients", moves.worth_of_turns
    exact = "trajectories by the exact force", moves.worth_of_trajectories
    soft = "trajectories by a softened force", moves.worth_of_softened
    if moves.fresh is not None:
        made = f"{fresh[0]}, {moves.fresh} fresh to a draw"
        (_, worth), others = fresh, (turns, exact, soft)
    elif moves.turn is not None:
        smallest = math.degrees(moves.turn)
        angles = "90°" if smallest > 89 else f"{smallest:.3g}° to 90°"
        made = f"turns of {angles} without gradients, {moves.passes:.2g} a draw"
        (_, worth), others = turns, (fresh, exact, soft)
    elif moves.width is not None:
        made = f"{soft[0]}, of relative width {moves.width:.2g}"
        (_, worth), others = soft, (exact, fresh, turns)
    else:
        (made, worth), others = exact, (fresh, turns, soft)
    beside = ", ".join(f"{name} {it:.2g}" for name, it in others if not math.isnan(it))
    return (
        f"{made}, expected to give {worth:.2g} independent draws for the work of a gradient; "
        f"{beside}"
    )
