"""The interface of starts: where the chains of a run begin."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ppl_cnn.inference.sampling.keys import chain_keys
from ppl_cnn.models.density import TiltedDensity
from ppl_cnn.progress import Bar

type Latents = Float[Array, "chain ..."]
"""Points z of a density's `latent_shape`; its image is `density.push(z)`."""


class Started(NamedTuple):
    """Where the chains of some densities start, and what finding that took."""

    latents: Latents | None
    """Those of the first density's chains first; None for draws of the reference."""
    gradients: list[int]
    """Gradients that each density's chains have taken together."""
    notes: list[dict[str, Any]]
    """Fields for each unit's record."""


type Placed = tuple[Latents, int, dict[str, Any]]
"""Where a density's chains start, the gradients that took, and fields for the unit's record."""


class UnitChains(NamedTuple):
    """The chains of one density that are to start."""

    density: TiltedDensity
    compiled: TiltedDensity
    """A density with the same program, for which functions are compiled."""
    keys: Key[Array, " chain"]
    drawn: Latents
    """Each chain's draw of the reference."""
    bar: Any
    """A progress bar over chains."""


@runtime_checkable
class ChainSettings(Protocol):
    """The settings that starts depend on."""

    @property
    def chains(self) -> int:
        """Chains of each density."""

    @property
    def seed(self) -> int:
        """The run's seed."""


class Start(ABC):
    """Where chains start. Its text, `str(start)`, is what a run records."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def place(self, chains: UnitChains) -> Placed:
        """Where the chains of one density start.

        Args:
            chains: those that are to start; the progress bar moves on by each.

        Raises:
            InputError: the start doesn't fit the density or the number of chains.
        """

    def check(self, chains: int) -> None:  # noqa: B027  # most take any number of chains
        """Refuses a number of chains that can't start this way; known before anything is done.

        Args:
            chains: of each density.

        Raises:
            ArgumentError: the number doesn't fit.
        """

    def latents(
        self,
        densities: Sequence[TiltedDensity],
        settings: ChainSettings,
        *,
        progress: bool = True,
    ) -> Started:
        """Where all chains of these densities start.

        Args:
            densities: the targets; their units have the same program.
            settings: the number of chains of each, and the seed.
            progress: whether to show a bar, once it takes more than two seconds.

        Raises:
            InputError: the start doesn't fit the densities or the number of chains.
        """
        self.check(settings.chains)
        latents = list[Latents]()
        gradients, notes = list[int](), list[dict[str, Any]]()
        keys = chain_keys(densities, settings.seed, settings.chains)
        total = len(densities) * settings.chains
        # Without miniters, a postfix that is set between two chains would not be shown.
        with Bar(
            total=total,
            desc="starts",
            unit="chain",
            delay=2,
            miniters=0,
            leave=False,
            disable=not progress,
        ) as bar:
            for density, own in zip(densities, keys.reshape(len(densities), -1), strict=True):
                drawn = _reference_draws(density, own)
                chains = UnitChains(density, densities[0], own, drawn, bar)
                placed, spent, note = self.place(chains)
                latents.append(placed)
                gradients.append(spent)
                notes.append(note)
        return Started(jnp.concatenate(latents), gradients, notes)


def _reference_draws(density: TiltedDensity, keys: Array) -> Latents:
    keys = jax.vmap(partial(jax.random.fold_in, data=1))(keys)
    return jax.vmap(partial(jax.random.normal, shape=density.latent_shape))(keys)
