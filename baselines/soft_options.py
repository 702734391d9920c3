"""Soft options: actor-critics of agents that follow options, alone or telling each other one step late.

(Thesis, section 4.3.) At every step an agent ends its option or keeps it (the termination policy), draws a
new one if it has ended it (the option policy, also known as the master), and draws an action (the action
policy). An agent that knows of another one imagines these three choices of the other too, inside of its own.
What depends on what is a table, `jaxmarl_fac.soft.options.OptionModel`: for each of its choices there is a
value network and a policy network, and besides them one network Q.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from baselines.actor_critic import agent_orderings
from baselines.parts import EpsilonGreedy, Optimiser, TransitionReplay
from envs.base import Observation, TeamEnvironment, compact_dtype
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Learner, LearnerState, Metrics, Params, periods
from jaxmarl_fac.experience import Clock, Decision, Trajectory, over_batch
from jaxmarl_fac.exploration import sample_actions
from jaxmarl_fac.game import GameSpec, refuse_reward_per_agent
from jaxmarl_fac.networks import ZeroInitMLP
from jaxmarl_fac.policy_gradients import log_policy
from jaxmarl_fac.settings import AnyWidths, Positive, Probability, Settings, StepSize, between
from jaxmarl_fac.soft.losses import soft_policy_loss, soft_q_loss, soft_value_loss
from jaxmarl_fac.soft.options import (
    DELAYED,
    NO_MESSAGE,
    SINGLE,
    Choice,
    OptionModel,
    SoftOptions,
    align,
    backup,
)
from jaxmarl_fac.targets import td_target
from jaxmarl_fac.values import UNAVAILABLE

#: What the options of the step before were called then.
NOW = {"previous": "option", "other_previous": "other_option"}


class OptionMemory(NamedTuple):
    """What the agents keep in mind: the option that each of them has followed last."""

    options: jax.Array  # (n,) integers


class FollowedOptions(NamedTuple):
    """What is stored with a step."""

    options: jax.Array  # (n,) integers, z_t
    previous: jax.Array  # (n,) integers, z_{t-1}


class Priors(NamedTuple):
    """What an agent's choices are regularised towards, the agent itself first."""

    action_priors: tuple[jax.Array, ...]  # for each agent P(a | s, z), (S, m, A)
    option_priors: tuple[jax.Array, ...]  # for each agent P(z), (m,)
    termination_prior: jax.Array  # p = P(b = 1), ()


# Networks


class OptionNetworks(nn.Module):
    """Q, and for each choice of a model its value and its policy, as tables of options and actions.

    `(S, O)` to Q `(S, *model.axes)`, and by the name of each choice values `(S, *choice.given)` and outputs
    `(S, *choice.given, X)` which, added to the log-prior, are the logits of a policy over X. All outputs are
    0 at first, so that policies start as their priors. Without hidden layers and with one-hot observations
    every output is a number of its own, but for a common shift.

    Args:
        model: what depends on what.
        sizes: of its axes, by name.
        hidden: widths of every network's hidden layers.
    """

    model: OptionModel
    sizes: Mapping[str, int]
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, view: jax.Array) -> SoftOptions:
        def table(name: str, axes: Sequence[str]) -> jax.Array:
            shape = [self.sizes[axis] for axis in axes]
            outputs = ZeroInitMLP(self.hidden, math.prod(shape), name=name)(view)
            return outputs.reshape(*view.shape[:-1], *shape)

        return SoftOptions(
            q=table("q", self.model.axes),
            values={
                choice.variable: table(f"{choice.variable}_value", choice.given)
                for choice in self.model.choices
            },
            policies={
                choice.variable: table(f"{choice.variable}_policy", (*choice.given, choice.variable))
                for choice in self.model.choices
            },
        )


def axis_sizes(num_options: int, num_actions: int) -> dict[str, int]:
    """The sizes of all axes that a model may have."""
    sizes = {"action": num_actions, "option": num_options, "previous": num_options, "termination": 2}
    return sizes | {f"other_{name}": size for name, size in sizes.items()}


def choose_by(networks: SoftOptions, choice: Choice, prior: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The log-policy of a choice and its log-prior, both `(S, *given, X)`.

    Args:
        networks: outputs of `OptionNetworks`.
        choice: of its model.
        prior: P, broadcastable to that shape.
    """
    logits = networks.policies[choice.variable]
    prior = jnp.broadcast_to(prior, logits.shape)
    possible = prior > 0
    log_prior = jnp.where(possible, jnp.log(jnp.where(possible, prior, 1)), UNAVAILABLE)
    return log_policy(logits + log_prior, possible), log_prior


def policies_of(networks: SoftOptions, model: OptionModel, priors: Priors) -> SoftOptions:
    """The tables that the networks hold, with policies as probabilities.

    Args:
        networks: outputs of `OptionNetworks` in S states.
        model: theirs.
        priors: in the same states.
    """

    def reduction(choice: Choice, values: jax.Array, prior: jax.Array) -> tuple[jax.Array, jax.Array]:
        return networks.values[choice.variable], jnp.exp(choose_by(networks, choice, prior)[0])

    return backup(priors, model, networks.q, reduction)


def entries(table: jax.Array, axes: Sequence[str], places: Mapping[str, jax.Array]) -> jax.Array:
    """The part of a table `(*axes, ...)` at `places`, each `()`, without the axes of these.

    As masked sums, whose gradients are no scatters.
    """
    for axis in reversed(range(len(axes))):
        if axes[axis] in places:
            hot = jax.nn.one_hot(places[axes[axis]], table.shape[axis], dtype=table.dtype)
            table = jnp.tensordot(table, hot, axes=(axis, 0))
    return table


# The learners


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptionsAC(Settings, abc.ABC):
    """An actor-critic over the choices of an `OptionModel`, by replay.

    Every agent has networks of its own. In each update all of them take one step on the sum of their losses,
    with expectations over choices taken exactly:

    - a value V towards `Σ_x π(x) (v(x) - log π(x)/P(x))`, where v is the table of the choice inside of it;
    - a policy towards `P e^v` normalised, by the KL divergence;
    - Q at the actions that were taken towards `β r + γ U(s', z)`.

    Learning is off-policy: agents act by their policies, of whose actions a share is uniform. Options are
    drawn uniformly at the start of an episode. Greedy play draws from the policies too, for they are what
    solves the regularised problem; it only leaves the uniform share out.

    Attributes:
        optimiser: how parameters are changed.
        replay: what is kept of experience.
        exploration: the share of uniform actions in what agents play.
        hidden: widths of the hidden layers of every network; none makes them linear, which on one-hot
            observations are tables.
        beta: β, weight of the reward against the log-ratios of policies to priors.
        gamma: discount factor.
        termination_prior: p, prior probability of ending an option at a step.
        target_rate: share of the way that targets of Q go towards the parameters in each update (Polyak); 1
            has no separate targets, as in the thesis.
        relabel: whether a step teaches all options and all actions, since its reward and next state depend on
            the options of nobody (intra-option learning; Sutton, Precup and Singh, 1998), or only those that
            were followed and taken, as in the thesis.
    """

    optimiser: Optimiser = Optimiser(learning_rate=0.03, learning_rate_schedule="linear")
    replay: TransitionReplay = TransitionReplay(batch_size=64, replay_size=100_000)
    exploration: EpsilonGreedy = EpsilonGreedy(epsilon_start=0.5, epsilon_end=0.5)
    hidden: AnyWidths = ()
    beta: Positive = 1.0
    gamma: Probability = 0.9
    termination_prior: Annotated[float, between(0, 1, open_low=True)] = 0.5
    target_rate: StepSize = 1.0
    relabel: bool = True

    @property
    @abc.abstractmethod
    def model(self) -> OptionModel:
        """What depends on what."""

    def check(self, game: GameSpec) -> None:
        """Refuse a game that the algorithm cannot play.

        Raises:
            BadInputError: saying why.
        """
        if game.num_options < 2:
            raise BadInputError(
                f"the algorithm needs a game whose agents have two options or more, and {game.name} has "
                f"{game.num_options or 'none'}: take four-rooms, buttons-and-doors or option-mdp-random"
            )
        refuse_reward_per_agent(game)
        if game.num_agents != self.model.agents:
            agents = self.model.agents
            raise BadInputError(
                f"the algorithm is for {agents} agent{'s' * (agents > 1)}, and {game.name} has "
                f"{game.num_agents}: take {'buttons-and-doors' if agents == 2 else 'four-rooms'}"
            )

    def network(self, game: GameSpec) -> OptionNetworks:
        """The networks of one agent."""
        return OptionNetworks(self.model, axis_sizes(game.num_options, game.num_actions), self.hidden)

    def priors(self, game: GameSpec, observation: Observation, agent: jax.Array) -> Priors:
        """The priors of one agent in the observed state, S = 1."""
        ordering = jnp.asarray(agent_orderings(game.num_agents))[agent]
        by_agent = game.option_priors(observation)[ordering]  # (n, m, A)
        uniform = jnp.full((game.num_options,), 1 / game.num_options, jnp.float32)
        return Priors(
            action_priors=tuple(prior[None] for prior in by_agent),
            option_priors=(uniform,) * game.num_agents,
            termination_prior=jnp.asarray(self.termination_prior, jnp.float32),
        )

    def tables(self, game: GameSpec, params: Params, observation: Observation) -> SoftOptions:
        """What every agent's networks hold of the observed state: leaves with a leading axis `(n,)`.

        Policies are probabilities; see `jaxmarl_fac.soft.options.SoftOptions`.
        """

        def of_agent(agent: jax.Array, params: Params) -> SoftOptions:
            networks: Any = self.network(game).apply(params, observation.agents_view[agent][None])
            found = policies_of(networks, self.model, self.priors(game, observation, agent))
            return jax.tree.map(lambda leaf: leaf[0], found)  # type: ignore[no-any-return]

        return jax.vmap(of_agent)(jnp.arange(game.num_agents), params)

    def losses(
        self,
        game: GameSpec,
        agent: jax.Array,
        params: Params,
        target_params: Params,
        step: Trajectory,
    ) -> Metrics:
        """The losses `()` of one agent in one step, by name.

        Args:
            game: what is played.
            agent: its index `()`.
            params: of its networks.
            target_params: of those that value what follows.
            step: a trajectory of T = 1.
        """
        module, views = self.network(game), step.observation.agents_view[:, agent]
        online: Any = module.apply(params, views[:1])  # S = 1
        later: Any = module.apply(target_params, views[1:])
        following = later.values["termination"]
        model, places = self.model, placed(step, jnp.asarray(agent_orderings(game.num_agents))[agent])
        actions = {name: place for name, place in places.items() if name.endswith("action")}
        counted = {} if self.relabel else places

        axes = [axis for axis in model.axes if axis not in actions]
        q = entries(online.q[0], model.axes, actions)  # (*options)
        following = align(following, [NOW[axis] for axis in model.choices[-1].given], axes)[0]
        y = td_target(self.beta * step.reward[0], step.discount[0], self.gamma, following)
        losses = {"q": jnp.mean(entries(soft_q_loss(q, jnp.broadcast_to(y, q.shape)), axes, counted))}

        def reduction(choice: Choice, values: jax.Array, prior: jax.Array) -> tuple[jax.Array, jax.Array]:
            logs, log_prior = choose_by(online, choice, prior)
            value, values = online.values[choice.variable], jnp.broadcast_to(values, logs.shape)
            for name, loss in (("value", soft_value_loss), ("policy", soft_policy_loss)):
                each = loss(value, values, logs, log_prior)[0]  # (*given)
                losses[f"{choice.variable}_{name}"] = jnp.mean(entries(each, choice.given, counted))
            return value, jnp.exp(logs)

        observation = jax.tree.map(lambda leaf: leaf[0], step.observation)
        backup(self.priors(game, observation, agent), model, online.q, reduction)
        return losses

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        """See `Algorithm.bind`."""
        self.check(game)
        memory, module, n = self.replay.memory(), self.network(game), game.num_agents
        given = {choice.variable: choice.given for choice in self.model.choices}
        kind = compact_dtype(game.num_options - 1)

        def init(key: jax.Array) -> LearnerState:
            view = game.observation().agents_view[:1]  # (S, O)
            params = jax.vmap(lambda key: module.init(key, view))(jax.random.split(key, n))
            return LearnerState(params, params, self.optimiser.init(params))

        def begin(params: Params, observation: Observation, key: jax.Array) -> OptionMemory:
            return OptionMemory(jax.random.randint(key, (n,), 0, game.num_options).astype(kind))

        def decide(
            params: Params,
            carry: OptionMemory,
            observation: Observation,
            random: jax.Array | None,
            key: jax.Array,
        ) -> Decision:
            """By the policies, of whose actions the share `random ()` is uniform."""
            policies = self.tables(game, params, observation).policies

            def choose(
                policies: dict[str, jax.Array], options: jax.Array, mask: jax.Array, key: jax.Array
            ) -> tuple[jax.Array, jax.Array]:
                """The option and the action of an agent, by the last options `(n,)`, its own first."""
                places = dict(zip(("previous", "other_previous"), options, strict=False))
                end_key, option_key, action_key = jax.random.split(key, 3)

                def drawn(name: str, key: jax.Array) -> jax.Array:
                    return sample_actions(key, entries(policies[name], given[name], places))

                ends, fresh = drawn("termination", end_key), drawn("option", option_key)
                places["option"] = jnp.where(ends == 1, fresh, options[0])
                policy = entries(policies["action"], given["action"], places)  # (A,)
                if random is not None:
                    policy = (1 - random) * policy + random * mask / jnp.sum(mask)
                return places["option"].astype(kind), sample_actions(action_key, policy)

            orderings, keys = jnp.asarray(agent_orderings(n)), jax.random.split(key, n)
            chosen = jax.vmap(choose)(policies, carry.options[orderings], observation.action_mask, keys)
            options, actions = chosen
            return Decision(actions, OptionMemory(options), FollowedOptions(options, carry.options))

        def act(
            params: Params, carry: OptionMemory, observation: Observation, clock: Clock, key: jax.Array
        ) -> Decision:
            return decide(params, carry, observation, self.exploration.epsilon(clock), key)

        def act_greedily(
            params: Params, carry: OptionMemory, observation: Observation, key: jax.Array
        ) -> Decision:
            return decide(params, carry, observation, None, key)

        def update(
            state: LearnerState, batch: Trajectory, clock: Clock, key: jax.Array
        ) -> tuple[LearnerState, Metrics]:
            def agent_loss(
                agent: jax.Array, params: Params, target_params: Params
            ) -> tuple[jax.Array, Metrics]:
                each = over_batch(lambda step: self.losses(game, agent, params, target_params, step), batch)
                means = jax.tree.map(jnp.mean, each)
                return jnp.sum(jnp.stack(list(means.values()))), means

            def total(params: Params) -> tuple[jax.Array, Metrics]:
                losses, each = jax.vmap(agent_loss)(jnp.arange(n), params, state.target_params)
                return jnp.sum(losses), {f"{name}_loss": jnp.mean(loss) for name, loss in each.items()}

            gradients, metrics = jax.grad(total, has_aux=True)(state.params)
            params, opt_state = self.optimiser.step(state.params, gradients, state.opt_state, clock.progress)
            targets = optax.incremental_update(params, state.target_params, self.target_rate)
            return LearnerState(params, targets, opt_state), metrics

        when = periods(memory, game, num_envs, learning_starts=self.replay.learning_starts)
        return Learner(memory, when, init, begin, act, act_greedily, update)


def placed(step: Trajectory, ordering: jax.Array) -> dict[str, jax.Array]:
    """The variables that had a value in a step, each `()`, by name.

    Args:
        step: a trajectory of T = 1.
        ordering: `(n,)`, the agents as one of them counts, itself first.
    """
    followed: FollowedOptions = step.extras
    values = {"action": step.actions[0], "option": followed.options[0], "previous": followed.previous[0]}
    return {
        prefix + name: each[ordering][place]
        for place, prefix in zip(range(ordering.shape[0]), ("", "other_"), strict=False)
        for name, each in values.items()
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftOptionsAC(OptionsAC):
    """Soft options of a single agent (thesis, equations 4.22 to 4.28): three values, three policies and Q.

    Equation 4.28 has the wrong sign: Q goes towards `β r + γ U`. See `OptionsAC`.
    """

    @property
    def model(self) -> OptionModel:
        return SINGLE


@dataclasses.dataclass(frozen=True, kw_only=True)
class DelayedOptionsAC(OptionsAC):
    """Two agents that tell each other their options one step late (thesis, equations 4.29 to 4.41).

    Each has six values, six policies and Q, of which it acts by the last three policies: the others are its
    model of the other agent. What it knows of the other's option is the one of the step before. Corrected are
    the sign of 4.41, the missing logarithm of 4.32 and the action that 4.29 and 4.30 leave out. See
    `OptionsAC`.

    Attributes:
        message: whether agents are told each other's last options. Without, the other's is taken for a draw
            from its prior, and there are five values and five policies.
    """

    message: bool = True

    @property
    def model(self) -> OptionModel:
        return DELAYED if self.message else NO_MESSAGE


def learned_tables(algorithm: OptionsAC, env: TeamEnvironment, params: Params) -> SoftOptions:
    """What a learner holds of every state of an `OptionMDP`: leaves with leading axes `(n, S)`.

    Axes and names are those of `jaxmarl_fac.soft.options.solve`; of an agent's own table `leaf[agent]` the
    agent itself is the first.

    Args:
        algorithm: with all its settings.
        env: a single game whose state is a number.
        params: of a learner, without a lane axis.
    """
    game, first = GameSpec.of(env), env.reset(jax.random.key(0))[0]

    def of_state(number: jax.Array) -> SoftOptions:
        return algorithm.tables(game, params, env.observe(first.replace(state=number)))

    states = jnp.arange(game.state_size, dtype=first.state.dtype)
    return jax.vmap(of_state, out_axes=1)(states)  # type: ignore[no-any-return]
