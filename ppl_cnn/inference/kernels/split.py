"""The split kernel: HMC that turns (z, p) exactly, so that more dimensions need no shorter step.

Where the tilt is so weak that forward passes alone draw more for the same work, it draws from pools
of fresh draws (`moves.pool`) or makes turns without kicks (`choice`). Where kinks of the network
limit the step, kicks follow a smooth relative of the tilt (`moves.softening`).
"""

from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ppl_cnn.errors import unknown
from ppl_cnn.inference.kernels.adaptation import Tuned
from ppl_cnn.inference.kernels.chain_state import ChainState, first_chain
from ppl_cnn.inference.kernels.choice import (
    LEAST_WARMUP,
    NO_GRADIENTS,
    TURNS_TO_A_GRADIENT,
    Choice,
    Trial,
)
from ppl_cnn.inference.kernels.freshness import Weights
from ppl_cnn.inference.kernels.kernel import COMMON, Statistic, Target, Transition, with_settings
from ppl_cnn.inference.kernels.moves.pool import Pool, drawn_if
from ppl_cnn.inference.kernels.moves.softening import SoftProposal, kinks, soft_metropolis
from ppl_cnn.inference.kernels.moves.trajectory import (
    FIRST_ANGLE,
    FIRST_STEP,
    Latent,
    Point,
    Proposal,
    Tilt,
    divided,
    jump_feedback,
    jumped,
    mean_square,
    metropolis,
    turned,
)
from ppl_cnn.inference.kernels.softness import Softness, SoftTrial
from ppl_cnn.inference.kernels.tilt_kernel import TiltKernel
from ppl_cnn.numeric import positive
from ppl_cnn.work import FORWARD_COST

TARGET_ACCEPT = 0.65
"""Under a strong tilt the kinks of ReLU and max-pooling make the energy's error grow like the step,
not like its square, so that longer steps pay that accept less often."""
MOVES = ("chosen", "trajectories")
FORCES = ("softened", "exact")
_CHOOSING: Mapping[str, Statistic] = {
    "forward_passes": Statistic(np.int32, "sum"),
    "turn": Statistic(np.float32),  # radians of the smallest; 0 where none is made
    "fresh_per_draw": Statistic(
        np.int32
    ),  # fresh draws to a draw from a pool; 0 where there is none
    "worth_of_turns": Statistic(np.float32),
    "worth_of_fresh": Statistic(np.float32),
    "worth_of_trajectories": Statistic(np.float32),
    "width": Statistic(np.float32),  # of softened kinks; 0 where the force is exact
    "worth_of_softened": Statistic(np.float32),
}
_TURNS, _POOL = 2, 3
"""What is folded into a transition's key for its turns, and for its pool; `metropolis` splits the
key in two."""


class Split(TiltKernel[ChainState]):
    """HMC with exact turns, for p(z) ∝ exp(g(z)) N(z; 0, I).

    The angle of a trajectory with several steps is jittered over 0.5 to 1.5 times the adapted one,
    by the van der Corput sequence of the transition's number: chains side by side have the same
    angle and needn't wait for each other. The warmup adapts step size and angle
    (`adaptation.Tuning`). It also tries a turn without kicks, which takes a forward pass and no
    gradient, beside each trajectory; from its end on the chains of a density make whichever is
    expected to give more independent draws for the same work: trajectories, turns, or draws from
    pools of fresh draws of the reference (`choice.Choice`). Where trajectories
    take more than two steps and the tilt has kinks, it tries a softened force too, in every other
    eight transitions (`softness.SoftTuning`). A warmup below 64 transitions doesn't choose. Where
    no trajectories are made, or the force is softened, `tilt_gradient` is that of the last
    transition that took one of the tilt itself; its mean over draws is the same. With `MCMC.run`
    give `init_params`: an array or a tree of arrays, with a leading axis if there are several
    chains.

    Args:
        tilt: g, a function of z (an array or a tree of arrays) and of the arguments that `run`
            is given, to a scalar. Leave it out for `ppl_cnn.draw`, which takes the density's.
        moves: `chosen` by the warmup, or `trajectories` always, by the exact force.
        force: `softened` where the warmup finds that it pays, or `exact` always.
        target_accept_prob: mean acceptance probability that the step size is adapted to.
        step_size: radians between kicks at the start of adaptation, or for good without warmup.
        angle: radians of a trajectory at the start of adaptation, or for good without warmup.

    Raises:
        ArgumentError: a setting is out of range.
        UnknownNameError: there are no such moves, or no such force.

    Source: see `trajectory.integrate`, `choice`, `pool` and `softening`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from numpyro.infer import MCMC
        >>> kernel = Split(lambda z: 2.0 * z[0])  # N((2, 0), I)
        >>> mcmc = MCMC(kernel, num_warmup=100, num_samples=400, progress_bar=False)
        >>> mcmc.run(jax.random.key(0), init_params=jnp.zeros(2))
        >>> bool(abs(mcmc.get_samples().mean(axis=0) - jnp.asarray([2.0, 0.0])).max() < 0.3)
        True
    """

    name = "split"

    def __init__(
        self,
        tilt: Tilt | None = None,
        *,
        moves: str = "chosen",
        force: str = "softened",
        target_accept_prob: float = TARGET_ACCEPT,
        step_size: float = FIRST_STEP,
        angle: float = FIRST_ANGLE,
    ) -> None:
        super().__init__(tilt, target_accept_prob=target_accept_prob)
        if moves not in MOVES:
            raise unknown("moves", moves, MOVES)
        if force not in FORCES:
            raise unknown("force", force, FORCES)
        self._moves, self._force = moves, force
        self._step_size = positive("step_size", step_size)
        self._angle = positive("angle", angle)
        self._period = TURNS_TO_A_GRADIENT
        self._chooses = moves == MOVES[0]

    def __str__(self) -> str:
        """`split`, with the settings that are not the defaults."""
        settings = {
            "moves": (self._moves, MOVES[0]),
            "force": (self._force, FORCES[0]),
            "step_size": (self._step_size, FIRST_STEP),
            "angle": (self._angle, FIRST_ANGLE),
        }
        return with_settings(self.name, settings)

    @property
    def statistics(self) -> Mapping[str, Statistic]:
        """All statistics that a transition reports."""
        return {**COMMON, **(_CHOOSING if self._moves == MOVES[0] else {})}

    def bind(self, target: Target) -> Self:
        """A kernel of the same settings for the target's tilt.

        Args:
            target: the density to draw from. Without a Stein mean, no gradient is taken but for
                trajectories.

        Raises:
            ArgumentError: the kernel was given a tilt of its own.
        """
        bound = super().bind(target)
        bound._period = TURNS_TO_A_GRADIENT if target.has_stein_mean else NO_GRADIENTS
        return bound

    def after_warmup(self, warmup: int) -> Self:
        """A kernel that makes trajectories alone if the warmup is too short to choose.

        Args:
            warmup: transitions that adapt it.
        """
        known = copy(self)
        known._chooses &= warmup >= LEAST_WARMUP
        return known

    def first_state(self, tilt: Tilt, key: Array, z: Latent) -> ChainState:
        """One chain's first state."""
        first = Tuned(jnp.asarray(self._step_size), jnp.asarray(self._angle))
        if self._moves != MOVES[0]:
            return first_chain(tilt, key, z, first)
        choice = Choice.trajectories(self._period)
        first = first._replace(choice=choice)
        own = _reported(first, jnp.zeros((), jnp.int32))
        if not self._chooses:
            first = first._replace(choice=None)
        elif self._force == FORCES[0] and (count := kinks(tilt, z)):
            first = first._replace(softness=Softness.none(count))
        pool = Pool.none(jax.random.fold_in(key, _POOL), z) if self._chooses else None
        return first_chain(tilt, key, z, first, own=own, pool=pool)

    def next_state(self, tilt: Tilt, state: ChainState) -> ChainState:
        """One chain's state after another transition."""
        choice = state.adapt_state.choice
        return transition(tilt, state) if choice is None else chosen(tilt, state, choice)


def transition(tilt: Tilt, state: ChainState) -> ChainState:
    """One Metropolis-corrected trajectory from a chain's state, without adaptation.

    Args:
        tilt: g.
        state: of one chain.
    """
    key, key_move = jax.random.split(state.rng_key)
    steps, step_size = divided(state.adapt_state, state.i)
    moved = metropolis(tilt, state.point, key_move, step_size, steps)
    return _followed(state, moved, key=key, step_size=step_size, steps=steps)


def _followed(
    state: ChainState,
    moved: Proposal,
    *,
    key: Array,
    step_size: Float[Array, ""],
    steps: Int[Array, ""],
) -> ChainState:
    """The state after a trajectory."""
    return state.after(
        moved.point,
        key,
        acceptance=moved.acceptance,
        energy=state.potential_energy + moved.kinetic_energy + moved.energy_change,
        num_steps=steps,
        diverging=moved.diverging,
        feedback=jump_feedback(state.point, moved, step_size, steps),
    )


def chosen(tilt: Tilt, state: ChainState, choice: Choice) -> ChainState:
    """A transition by the moves that were chosen, or a trajectory that tries a turn beside it.

    Args:
        tilt: g.
        state: of one chain.
        choice: its moves.
    """
    without, tuned = choice.passes > 0, state.adapt_state
    soft = jnp.zeros((), bool) if tuned.softness is None else tuned.softness.width > 0
    either = partial(jax.tree.map, partial(jnp.where, without))
    key, key_move = jax.random.split(state.rng_key)
    tried = jnp.where(soft, 0, choice.tried)
    count = jnp.where(without, choice.turns, tried)
    key_turns = jax.random.fold_in(key_move, _TURNS)
    turns = turned(tilt, state.point, key_turns, choice.angle, count, choice.doublings)
    assert state.pool is not None
    key_pool = jax.random.fold_in(key_move, _POOL)
    found = drawn_if(tilt, turns.point, state.pool, key_pool, choice.fresh)
    after = state.after(
        found.point,
        key,
        acceptance=jnp.where(choice.fresh > 0, found.moved, turns.acceptance),
        num_steps=0,
        feedback=state.feedback,
        own=_reported(tuned, count + found.passes),
    )._replace(pool=found.pool)

    def follow(index: Array, state: ChainState) -> ChainState:
        # Beside other moves, or a softened force, one that goes nowhere finds the gradient there.
        resting = without | (index > 0)
        steps, step_size = divided(tuned, state.i)
        steps, step_size = jnp.where(resting, 1, steps), jnp.where(resting, 0.0, step_size)
        # The momentum's key is taken from what the loop changes, or XLA draws it before the loop.
        _, key_own = jax.random.split(state.rng_key)
        forced = _by_force(tilt, state.point, key_own, step_size, steps, tuned, resting)
        moved, here = forced.moved, state.point
        trial = Trial(
            here.tilt,
            jnp.stack([mean_square(here.z), (here.tilt - choice.centre) ** 2]),
            jumped(here, moved.end.point, moved.acceptance),
            steps.astype(jnp.float32),
            turns.jump,
            turns.acceptance,
            tried.astype(jnp.float32),
            Weights.of(turns.proposed[None], here.tilt, choice.centre),
        )
        followed = _followed(state, moved, key=key, step_size=step_size, steps=steps)
        feedback = followed.feedback._replace(
            trial=trial, softened=_soft_trial(trial, forced, tuned)
        )
        own = _reported(tuned, count + forced.passes)
        followed = followed._replace(feedback=feedback, own=own)
        rested = state._replace(point=moved.end.point, num_steps=state.num_steps + steps)
        picked: ChainState = jax.tree.map(partial(jnp.where, resting), rested, followed)
        return picked

    # A loop that runs once or never stands for a condition: in a batch of chains, a condition would
    # compute both ways.
    by_trajectories = choice.trajectories_to_a_gradient
    due = state.i % jnp.where(without, choice.transitions_to_a_gradient, by_trajectories) == 0
    # Widths change in the warmup, and the exact force needs the gradient where it begins.
    due |= soft & (choice.tried > 0)
    trajectories = (~without).astype(jnp.int32)
    rests = (due & (without | soft)).astype(jnp.int32)
    moved: ChainState = jax.lax.fori_loop(0, trajectories + rests, follow, either(after, state))
    return moved


def _by_force(
    tilt: Tilt,
    point: Point,
    key: Array,
    step_size: Float[Array, ""],
    steps: Int[Array, ""],
    tuned: Tuned,
    resting: Bool[Array, ""],
) -> SoftProposal:
    """A trajectory that follows the force that was chosen; where it rests, the exact one."""
    softness = tuned.softness
    if softness is None:
        moved = metropolis(tilt, point, key, step_size, steps)
        return SoftProposal(moved, jnp.zeros(()), jnp.zeros(0), jnp.zeros((), jnp.int32))
    softness = softness._replace(width=jnp.where(resting, 0.0, softness.width))
    return soft_metropolis(tilt, point, key, step_size, steps, softness)


def _soft_trial(trial: Trial, found: SoftProposal, tuned: Tuned) -> SoftTrial | None:
    """What a trajectory tells about the softened force, if there is one."""
    if tuned.softness is None:
        return None
    assert tuned.choice is not None
    made = (tuned.softness.width > 0).astype(jnp.float32)
    # Outside the warmup it takes one forward pass, and a gradient now and then.
    every = tuned.choice.trajectories_to_a_gradient.astype(jnp.float32)
    work = trial.steps + FORWARD_COST + 1 / every
    none = jnp.zeros_like(trial.of_turn)
    trial = trial._replace(steps=work, of_turn=none, tried=made)
    return SoftTrial(made, found.gap, found.squares, trial)


def _reported(tuned: Tuned, passes: Int[Array, ""]) -> Transition:
    """The values of the statistics that a kernel that chooses has."""
    choice, softness = tuned.choice, tuned.softness or Softness.none(0)
    assert choice is not None
    return {
        "forward_passes": passes,
        "turn": jnp.where(choice.turns > 0, choice.angle, 0.0),
        "fresh_per_draw": choice.fresh,
        "worth_of_turns": choice.worth_of_turns,
        "worth_of_fresh": choice.worth_of_fresh,
        "worth_of_trajectories": choice.worth_of_trajectories,
        "width": softness.width,
        "worth_of_softened": softness.worth,
    }
