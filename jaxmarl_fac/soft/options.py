"""Soft options: agents that keep an option until they end it, one agent, or two that tell each other late.

At every step an agent first decides whether to end its option (the *termination* policy, b = 1), if so draws
a new one (the *master* policy), and then acts by it (the *action* policy). Each of these choices pays its
log-ratio to a prior, so that each is a soft backup: the next table is `log Σ_x P(x) e^{v(x)}` of the last one
and the policy is `P(x) e^{v(x)}` normalised (thesis, section 4.1; Igl et al., 2019, "Multitask soft option
learning"). With two agents the option of the other arrives one step late, and the agent imagines the other's
three choices inside of its own (thesis, section 4.2).

A model is a table: which choices are made in which order, and what each is conditioned on (`SINGLE`,
`DELAYED`, ...). One backup reads it. As in `exact`, the precision is that of the game: build it, and call
these, inside `jax.enable_x64(True)` for float64. Every function is jitted or pure, and can be vmapped over
games. All values are in units of β times the reward.

Shapes: `S` states, `m` options, agent i has `A_i` actions. "Previous" is the option of the step before.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike as Scalar
from numpy.typing import ArrayLike

from envs.errors import BadInputError
from envs.team_mdp import TeamModel
from jaxmarl_fac.soft.operators import check_prior
from jaxmarl_fac.soft.planning import fixed_point

# Games


@struct.dataclass(eq=False)
class OptionGame:
    """A finite game of n = 1 or 2 agents with options; `option_game` builds it from checked tables.

    All fields are arrays, so that `jax.vmap` over a leading axis is a batch of games. At the first step of an
    episode the previous options are drawn from the priors over options, and every agent knows them all
    (P(z_0) in the thesis, equations 4.1 and 4.11). Nothing is earned in terminal states.

    Attributes:
        transition: `(S, A_1, ..., A_n, S)` probabilities.
        reward: `(S, A_1, ..., A_n)`, expected.
        terminal: `(S,)` bool.
        action_priors: for each agent P(a|s, z), `(S, m_i, A_i)`; 0 for actions that are not available.
        option_priors: for each agent P(z), `(m_i,)`; 1/m in the thesis.
        termination_prior: p = P(b = 1), the prior probability of ending an option, `()`, in (0, 1].
        beta: the weight β of the reward against the log-ratios, `()`, above 0.
        gamma: the discount, `()`, in [0, 1).
    """

    transition: jax.Array
    reward: jax.Array
    terminal: jax.Array
    action_priors: tuple[jax.Array, ...]
    option_priors: tuple[jax.Array, ...]
    termination_prior: jax.Array
    beta: jax.Array
    gamma: jax.Array

    @property
    def num_agents(self) -> int:
        """The number of agents, n."""
        return len(self.action_priors)

    def seen_by(self, agent: int) -> "OptionGame":
        """The same game with `agent` in the first place: what agent 1 of two plans with is `seen_by(1)`."""
        if agent == 0:
            return self
        swap = functools.partial(jnp.swapaxes, axis1=-2, axis2=-1)
        return self.replace(  # type: ignore[attr-defined, no-any-return]
            transition=jnp.swapaxes(self.transition, -3, -2),
            reward=swap(self.reward),
            action_priors=self.action_priors[::-1],
            option_priors=self.option_priors[::-1],
        )


def option_game(
    model: TeamModel,
    action_priors: Sequence[ArrayLike],
    *,
    option_priors: Sequence[ArrayLike] | None = None,
    termination_prior: float = 0.5,
    beta: float = 1.0,
    gamma: float = 0.9,
) -> OptionGame:
    """An `OptionGame` from checked tables; in float64 inside `jax.enable_x64(True)`.

    Args:
        model: the game without options, such as `TeamMDP.model()`.
        action_priors: for each agent P(a|s, z), `(S, m, A_i)`, or `(m, A_i)` if the same in every state.
        option_priors: for each agent P(z), `(m,)`; uniform if None.
        termination_prior: the prior probability p of ending an option at a step.
        beta: the weight of the reward.
        gamma: the discount.

    Raises:
        BadInputError: for priors that do not sum to 1 or do not fit the model, fewer than two options, or
            p, beta or gamma out of range.
    """
    states, *counts = model.reward.shape
    agents = len(counts)
    if not counts:
        raise BadInputError("a game without agents has no options: give a reward (S, A_1, ..., A_n)")
    if not 0 < termination_prior <= 1:
        raise BadInputError(
            f"the termination prior must be in (0, 1], not {termination_prior:g}: at 0 no option ever ends"
        )
    if not (beta > 0 and np.isfinite(beta)):
        raise BadInputError(f"beta must be a finite number above 0, not {beta:g}")
    if not 0 <= gamma < 1:
        raise BadInputError(f"gamma must be in [0, 1), not {gamma:g}")
    if len(action_priors) != agents:
        raise BadInputError(f"{len(action_priors)} action priors for {agents} agents: give one for each")
    checked = []
    for agent, (prior, actions) in enumerate(zip(action_priors, counts, strict=True)):
        name = f"the action prior of agent {agent}"
        shape = np.shape(prior)
        if len(shape) not in (2, 3):
            raise BadInputError(f"{name} has shape {shape}: give (S, m, A) or (m, A)")
        options = shape[-2]
        if options < 2:
            raise BadInputError(f"{name} has {options} option: options need at least two to choose from")
        leading = (states,) if len(shape) == 3 else ()
        table = check_prior(prior, (*leading, options, actions), name=name)
        checked.append(np.broadcast_to(table, (states, options, actions)))
    if option_priors is None:
        option_priors = [np.full(table.shape[1], 1 / table.shape[1]) for table in checked]
    if len(option_priors) != agents:
        raise BadInputError(f"{len(option_priors)} option priors for {agents} agents: give one for each")
    over_options = [
        check_prior(prior, table.shape[1:2], name=f"the option prior of agent {agent}")
        for agent, (prior, table) in enumerate(zip(option_priors, checked, strict=True))
    ]
    return OptionGame(
        transition=jnp.asarray(model.transition, float),
        reward=jnp.asarray(model.reward, float),
        terminal=jnp.asarray(model.terminal),
        action_priors=tuple(jnp.asarray(table, float) for table in checked),
        option_priors=tuple(jnp.asarray(table, float) for table in over_options),
        termination_prior=jnp.asarray(termination_prior, float),
        beta=jnp.asarray(beta, float),
        gamma=jnp.asarray(gamma, float),
    )


# Models: what is chosen in which order, and given what

_PREVIOUS = {"option": "previous", "other_option": "other_previous"}


@dataclasses.dataclass(frozen=True)
class Choice:
    """One random choice within a step, and how the table before it is reduced to the one after it.

    Attributes:
        variable: what is chosen: "action", "option" (by the master policy) or "termination" (b: 0 keeps the
            previous option, 1 draws a new one), of the agent itself, or with "other_" before it of the other.
        given: what the choice is conditioned on besides the state; the axes of the reduced table, in order.
        regularised: whether the log-ratio to the prior is part of the value. Without it the value is the mean
            under the same policy.
    """

    variable: str
    given: tuple[str, ...]
    regularised: bool = True

    @property
    def agent(self) -> int:
        """0 for the agent itself, 1 for the other."""
        return int(self.variable.startswith("other_"))

    @property
    def kind(self) -> str:
        """The variable without "other_"."""
        return self.variable.removeprefix("other_")


@dataclasses.dataclass(frozen=True)
class OptionModel:
    """How an agent reasons about options.

    Attributes:
        name: for messages.
        agents: the number of agents that a game must have.
        axes: of the action values q, after that of the state.
        choices: from the inside out: the first is reduced first, and made last.
    """

    name: str
    agents: int
    axes: tuple[str, ...]
    choices: tuple[Choice, ...]


#: One agent (thesis, equations 4.5 to 4.8): V(s, z), V^H(s) and U(s, z̄).
SINGLE = OptionModel(
    "soft options",
    1,
    ("option", "action"),
    (
        Choice("action", given=("option",)),
        Choice("option", given=()),
        Choice("termination", given=("previous",)),
    ),
)

#: Averages over terminations and options in place of soft maxima (Lobo and Jordan, 2019, "Soft options
#: critic"; thesis, equations 4.9 and 4.10).
LOBO_JORDAN = dataclasses.replace(
    SINGLE,
    name="Lobo and Jordan's soft options",
    choices=(
        SINGLE.choices[0],
        *(dataclasses.replace(choice, regularised=False) for choice in SINGLE.choices[1:]),
    ),
)

#: Two agents that know the other's option of the step before (thesis, equations 4.16 to 4.21). The first
#: three choices are those of the imagined other; only the last three are executed.
DELAYED = OptionModel(
    "delayed options",
    2,
    ("option", "action", "other_option", "other_action"),
    (
        Choice("other_action", given=("option", "action", "other_option")),
        Choice("other_option", given=("option", "action")),
        Choice("other_termination", given=("other_previous", "option", "action")),
        Choice("action", given=("other_previous", "option")),
        Choice("option", given=("other_previous",)),
        Choice("termination", given=("other_previous", "previous")),
    ),
)

#: `DELAYED` without the message. Not knowing the other's previous option, the agent takes it for a draw from
#: the prior over options; ending it or keeping it then makes no difference.
NO_MESSAGE = OptionModel(
    "options without messages",
    2,
    DELAYED.axes,
    (
        *DELAYED.choices[:2],
        Choice("action", given=("option",)),
        Choice("option", given=()),
        Choice("termination", given=("previous",)),
    ),
)


class HasPriors(Protocol):
    """What choices are regularised towards; an `OptionGame`, or anything with these three of its fields."""

    @property
    def action_priors(self) -> tuple[jax.Array, ...]:
        """For each agent P(a|s, z), `(S, m_i, A_i)`, that of the agent itself first."""

    @property
    def option_priors(self) -> tuple[jax.Array, ...]:
        """For each agent P(z), `(m_i,)`."""

    @property
    def termination_prior(self) -> jax.Array:
        """P(b = 1), `()`."""


class SoftOptions(NamedTuple):
    """Values and policies of every choice, by the name of its variable.

    Attributes:
        q: `(S, *model.axes)`: Q(s, z, a), or Q(s, z, a, z_o, a_o).
        values: the table after each choice, `(S, *choice.given)`. For one agent "action" is V(s, z), "option"
            is V^H(s) and "termination" is U(s, z̄).
        policies: the probabilities of each choice, `(S, *choice.given, number of values)`; of a termination
            the last axis is b, so `[..., 1]` is the probability of ending the option.
    """

    q: jax.Array
    values: dict[str, jax.Array]
    policies: dict[str, jax.Array]


#: Maps a choice, its values and its prior (broadcastable, last axis: what is chosen) to a value and a policy.
Reduction = Callable[[Choice, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def best_choice(choice: Choice, values: jax.Array, prior: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The optimal policy of a choice and its value (thesis, equations 4.5 to 4.7)."""
    value = jax.nn.logsumexp(values, axis=-1, b=prior)
    policy = prior * jnp.exp(values - value[..., None])
    return (value if choice.regularised else jnp.sum(policy * values, axis=-1)), policy


def backup(
    priors: HasPriors, model: OptionModel, q: jax.Array, reduction: Reduction = best_choice
) -> SoftOptions:
    """All values and policies that follow from the action values `q (S, *model.axes)`.

    Args:
        priors: of the game.
        model: which choices there are.
        q: action values.
        reduction: what each choice comes to.
    """
    table, axes = q, model.axes
    before: dict[str, tuple[jax.Array, tuple[str, ...]]] = {}  # the table that each choice reduces
    values, policies = {}, {}
    for choice in model.choices:
        before[choice.variable] = table, axes
        wanted = (*choice.given, choice.variable)
        if choice.kind == "termination":
            option = choice.variable.replace("termination", "option")
            kept, kept_axes = before[option]
            kept = align(
                kept, [_PREVIOUS[axis] if axis == option else axis for axis in kept_axes], choice.given
            )
            redrawn = align(table, axes, choice.given)
            table = jnp.stack(jnp.broadcast_arrays(kept, redrawn), axis=-1)
        else:
            table = align(table, axes, wanted)
        prior, prior_axes = _prior(priors, choice)
        table, policy = reduction(choice, table, align(prior, prior_axes, wanted))
        axes = choice.given
        values[choice.variable], policies[choice.variable] = table, policy
    return SoftOptions(q, values, policies)


def _prior(priors: HasPriors, choice: Choice) -> tuple[jax.Array, tuple[str, ...]]:
    """The prior of a choice with a leading axis of states, and its other axes."""
    option = choice.variable.replace(choice.kind, "option")
    if choice.kind == "action":
        return priors.action_priors[choice.agent], (option, choice.variable)
    if choice.kind == "option":
        return priors.option_priors[choice.agent][None], (option,)
    ends = priors.termination_prior
    return jnp.stack([1 - ends, ends])[None], (choice.variable,)


def align(table: jax.Array, axes: Sequence[str], wanted: Sequence[str]) -> jax.Array:
    """A table `(S, *axes)` as `(S, *wanted)`: its axes in that order, with size 1 where it lacks one."""
    present = [axis for axis in wanted if axis in axes]
    table = jnp.transpose(table, (0, *(1 + list(axes).index(axis) for axis in present)))
    return jnp.expand_dims(table, [1 + place for place, axis in enumerate(wanted) if axis not in axes])


# Planning


def bellman(
    game: OptionGame, model: OptionModel, q: jax.Array, reduction: Reduction = best_choice
) -> jax.Array:
    """The Bellman operator `β r + γ E U(s', z)` on `q (S, *model.axes)` (thesis, equations 4.8 and 4.21).

    The options of this step are the previous options of the next. A γ-contraction in the maximum norm for
    models whose choices are all regularised.
    """
    message = backup(game, model, q, reduction).values["termination"]
    given = model.choices[-1].given
    # (S, options): 0 after the end
    message = jnp.where(game.terminal.reshape(-1, *(1,) * len(given)), 0.0, message)
    following = jnp.tensordot(game.transition, message, axes=1)  # (S, A_1, ..., A_n, options)
    actions = ("action", "other_action")[: model.agents]
    options = [{name: now for now, name in _PREVIOUS.items()}[axis] for axis in given]
    following = align(following, (*actions, *options), model.axes)
    updated = align(game.beta * game.reward, actions, model.axes) + game.gamma * following
    return jnp.broadcast_to(updated, q.shape)  # without messages the other's option does not matter


def _checked(game: OptionGame, model: OptionModel) -> None:
    if game.num_agents != model.agents:
        raise BadInputError(
            f"{model.name} need a game of {model.agents} agent{'s' * (model.agents > 1)}, "
            f"not of {game.num_agents}"
        )


def solve(game: OptionGame, model: OptionModel = SINGLE, tolerance: Scalar = 1e-10) -> SoftOptions:
    """The fixed point of `bellman`, and all values and policies there.

    Example:
        >>> model = TeamModel(jnp.ones((1, 2, 1)), jnp.array([[0.0, 1.0]]), jnp.array([False]))
        >>> game = option_game(model, [[[0.9, 0.1], [0.1, 0.9]]], gamma=0.5)
        >>> solve(game).values["option"].round(3)
        Array([1.312], dtype=float32)

    Args:
        game: see `option_game`.
        model: `SINGLE`, `LOBO_JORDAN`, `DELAYED` or `NO_MESSAGE`. In the last two agent 0 is the one that
            plans; `solve(game.seen_by(1), ...)` is the other's.
        tolerance: the largest error of q, unless rounding errors are larger.

    Raises:
        BadInputError: for a game with another number of agents than the model is for.
    """
    _checked(game, model)
    return _solve(game, model, tolerance)


@functools.partial(jax.jit, static_argnames="model")
def _solve(game: OptionGame, model: OptionModel, tolerance: Scalar) -> SoftOptions:
    q = fixed_point(
        lambda q: bellman(game, model, q), _zeros(game, model), contraction=game.gamma, tolerance=tolerance
    )
    return backup(game, model, q)


def evaluate(
    game: OptionGame,
    model: OptionModel,
    policies: Mapping[str, jax.Array],
    tolerance: Scalar = 1e-10,
) -> SoftOptions:
    """The values of given policies: expected return minus log-ratios to the priors (thesis, 4.4 and 4.15).

    No policies are better than those of `solve`, in any state and for any previous options.

    Args:
        game: see `option_game`.
        model: see `solve`; its choices count with their log-ratios where they are regularised.
        policies: as `SoftOptions.policies`.
        tolerance: see `solve`.

    Raises:
        BadInputError: see `solve`.
    """
    _checked(game, model)
    return _evaluate(game, model, dict(policies), tolerance)


@functools.partial(jax.jit, static_argnames="model")
def _evaluate(
    game: OptionGame, model: OptionModel, policies: dict[str, jax.Array], tolerance: Scalar
) -> SoftOptions:
    def reduction(choice: Choice, values: jax.Array, prior: jax.Array) -> tuple[jax.Array, jax.Array]:
        policy = policies[choice.variable]
        chosen = policy > 0
        ratio = jnp.log(jnp.where(chosen, policy, 1)) - jnp.log(jnp.where(chosen, prior, 1))
        if choice.regularised:
            values = values - ratio
        return jnp.sum(jnp.where(chosen, policy * values, 0), axis=-1), policy

    q = fixed_point(
        lambda q: bellman(game, model, q, reduction),
        _zeros(game, model),
        contraction=game.gamma,
        tolerance=tolerance,
    )
    return backup(game, model, q, reduction)


def _zeros(game: OptionGame, model: OptionModel) -> jax.Array:
    sizes = []
    for agent in range(model.agents):
        _, options, actions = game.action_priors[agent].shape
        sizes += [options, actions]
    return jnp.zeros((game.reward.shape[0], *sizes), game.reward.dtype)


# Execution


def behaviour(solution: SoftOptions) -> jax.Array:
    """P(z, a | s, z̄_o, z̄) of an agent that acts by its termination, master and action policies.

    Returns:
        `(S, m_o, m, m, A)`: state, the other's previous option (size 1 if the agent does not use it), its own
        previous option, its option, its action.
    """
    ends, master, action = (solution.policies[name] for name in ("termination", "option", "action"))
    if ends.ndim == 3:  # without a message
        ends, master, action = (jnp.expand_dims(policy, 1) for policy in (ends, master, action))
    keeps = jnp.eye(master.shape[-1], dtype=master.dtype)  # (z̄, z)
    option = ends[..., :1] * keeps + ends[..., 1:] * master[:, :, None]  # (S, z̄_o, z̄, z)
    return option[..., None] * action[:, :, None]


@functools.partial(jax.jit, static_argnames="steps")
def expected_return(
    game: OptionGame, solutions: tuple[SoftOptions, ...], start: jax.Array, steps: int, discount: Scalar = 1.0
) -> jax.Array:
    """The expected return `()` of episodes of at most `steps` steps, in units of the reward.

    Args:
        game: see `option_game`.
        solutions: one for each agent, each planned from its own side (`OptionGame.seen_by`).
        start: `(S,)` probabilities of the first state.
        steps: until truncation.
        discount: of the rewards.
    """
    policies = tuple(map(behaviour, solutions))

    def step(values: jax.Array, _: None) -> tuple[jax.Array, None]:
        # values: (S, previous options of agent 1, ..., n)
        shown = jnp.where(game.terminal.reshape(-1, *(1,) * (values.ndim - 1)), 0.0, values)
        q = discount * jnp.tensordot(game.transition, shown, axes=1)  # (S, A_1.., z_1..)
        if len(policies) == 1:
            q = q + game.reward[..., None]  # (S, A, Z)
            return jnp.einsum("szya,say->sz", policies[0][:, 0], q), None
        q = q + game.reward[..., None, None]  # (S, A, B, Y, W)
        first, second = policies  # (S, w̄, ȳ, y, a) and (S, ȳ, w̄, w, b); bars are previous options
        first = jnp.broadcast_to(first, (*first.shape[:1], values.shape[2], *first.shape[2:]))
        second = jnp.broadcast_to(second, (*second.shape[:1], values.shape[1], *second.shape[2:]))
        return jnp.einsum("sdcya,scdwb,sabyw->scd", first, second, q), None

    options = tuple(len(prior) for prior in game.option_priors)
    zeros = jnp.zeros((len(game.terminal), *options), game.reward.dtype)
    values, _ = jax.lax.scan(step, zeros, length=steps)
    for prior in reversed(game.option_priors):
        values = values @ prior
    return jnp.sum(start * values)
