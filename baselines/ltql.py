"""Logical Team Q-learning (Cassano and Sayed, 2021): update where the other agents acted greedily."""

import dataclasses
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.q_learning import Method, QLearner
from baselines.tabular import TabularRule, TabularStep, add_at_taken, rows, tabular_target
from envs.base import Observation
from jaxmarl_fac.algorithm import Metrics
from jaxmarl_fac.experience import Trajectory, over_batch
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.networks import MLP, agent_inputs, of_all_agents
from jaxmarl_fac.settings import OffOrAbove, Probability
from jaxmarl_fac.targets import td_target
from jaxmarl_fac.values import chosen, mask_unavailable
from jaxmarl_fac.weights import logical_weights, others_greedy, played_greedily


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Logic:
    """What both forms of LTQL have.

    Attributes:
        alpha: step size, relative to a whole step, of q_B towards a higher target if another agent explored.
        second_if: the second condition of the algorithm: "elif" as in the authors' code, or "if", as their
            slide prints it; see `logical_weights`.
    """

    alpha: Probability = 1.0
    second_if: Literal["elif", "if"] = "elif"


class LogicalTables(NamedTuple):
    """The two tables, each `(n, O, A)`."""

    q_b: jax.Array  # optimistic: agents act by it, and greediness is judged by it
    q_u: jax.Array  # unbiased: targets bootstrap from it


@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularLogic(_Logic, TabularRule):
    """Logical Team Q-learning in tables.

    With `y_k = r + gamma max q_U^k(s', .)`, for every agent k: if all others took a best action by q_B, then
    q_B and q_U take a step towards y_k; otherwise, if y_k is above q_B, then q_B takes `alpha` of a step.
    Greediness is evaluated before the tables are updated.
    """

    def init(self, shape: tuple[int, int, int], value: float | jax.Array) -> LogicalTables:
        return LogicalTables(jnp.full(shape, value), jnp.full(shape, value))

    def preferences(self, tables: LogicalTables) -> jax.Array:
        """q_B."""
        return tables.q_b

    def learn(
        self, tables: LogicalTables, step: TabularStep, rate: float | jax.Array, gamma: float | jax.Array
    ) -> LogicalTables:
        q_b, q_u = tables
        y = tabular_target(q_u, step, gamma)
        now = rows(q_b, step.observed)  # (n, A)
        useful = others_greedy(played_greedily(mask_unavailable(now, step.action_mask), step.actions))
        error_b = y - chosen(now, step.actions)
        error_u = y - chosen(rows(q_u, step.observed), step.actions)
        weight_b = logical_weights(error_b, useful, self.alpha, self.second_if == "if", rate)
        return LogicalTables(
            add_at_taken(q_b, step, rate * weight_b * error_b),
            add_at_taken(q_u, step, rate * useful * error_u),
        )


class ActionValues(nn.Module):
    """Action values of all agents: `(n, O)` to `(n, A)`.

    Args:
        num_actions: A.
        widths: of the hidden layers.
        bound: above 0, values are `bound tanh(.)`.
        share_parameters: see `networks.of_all_agents`.
        agent_ids: whether agents see a one-hot id of their own.
        layer_norm: see `networks.MLP`.
        shared_layers: False gives every action a network of its own.
    """

    num_actions: int
    widths: tuple[int, ...]
    bound: float
    share_parameters: bool
    agent_ids: bool
    layer_norm: bool
    shared_layers: bool

    @nn.compact
    def __call__(self, agents_view: jax.Array) -> jax.Array:
        seen = agent_inputs(agents_view, agent_ids=self.agent_ids)
        if self.shared_layers:
            mlp = of_all_agents(MLP, self.share_parameters)
            network = mlp(self.widths, self.num_actions, layer_norm=self.layer_norm, name="MLP_0")
            values = network(seen)  # (n, A)
        else:
            for_each_action = nn.vmap(
                MLP,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=None,
                out_axes=-1,
                axis_size=self.num_actions,
            )
            mlp = of_all_agents(for_each_action, self.share_parameters)
            values = mlp(self.widths, 1, layer_norm=self.layer_norm, name="VmapMLP_0")(seen)
            values = values.reshape(-1, self.num_actions)
        return self.bound * jnp.tanh(values) if self.bound else values


class LogicalNetwork(nn.Module):
    """q_B and q_U."""

    q_b: ActionValues
    q_u: ActionValues

    def __call__(self, observation: Observation) -> tuple[jax.Array, jax.Array]:
        """Touches every parameter; for initialisation."""
        return self.utilities(observation), self.unbiased(observation)

    def utilities(self, observation: Observation) -> jax.Array:
        """The optimistic values q_B, by which the agents act: `(n, A)`."""
        return self.q_b(observation.agents_view)

    def unbiased(self, observation: Observation) -> jax.Array:
        """q_U: `(n, A)`."""
        return self.q_u(observation.agents_view)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LTQL(_Logic, Method):
    """Logical Team Q-learning with networks.

    Four sets of parameters: q_B and q_U are trained; their copies in the target network tell
    whether the others acted greedily (q_B) and give the targets (q_U). Each transition is used once for each
    agent. The loss is the mean over agents of `w (y - q_B)^2 + [useful] (y - q_U)^2`, with w of
    `logical_weights`. The authors' release acts by the copy of q_B; here agents act by q_B itself. As there,
    half of the games of the family "pursuit" are played by Boltzmann policies and half greedily
    (`BoltzmannEpisodes`); elsewhere agents explore epsilon-greedily.

    Attributes:
        useful_share: whether, as in the release, the two losses are sums over the batch and its agents, each
            multiplied by its own share of useful samples: the mean of w, and that of [useful]. Off, the loss
            is a mean, to which batches with few useful samples matter no less.
        q_bound: bounds values by `q_bound tanh(.)`; the largest return that there can be. 0 leaves it out.
        shared_layers: whether the actions share hidden layers, as they do in the networks of all other
            learners; the authors' release has a network for each action.
    """

    useful_share: bool = False
    q_bound: OffOrAbove = 0.0
    shared_layers: bool = False

    def network(self, game: GameSpec, learning: QLearner) -> LogicalNetwork:
        """Networks for q_B and q_U."""
        agents = learning.agents

        def values() -> ActionValues:
            return ActionValues(
                game.num_actions,
                agents.hidden,
                self.q_bound,
                agents.share_parameters,
                agents.agent_ids,
                agents.layer_norm,
                self.shared_layers,
            )

        return LogicalNetwork(values(), values())

    def loss(self, online: Any, target: Any, batch: Trajectory, gamma: float) -> tuple[jax.Array, Metrics]:
        """The mean over a batch of transitions and agents, or, with `useful_share`, the release's sums."""
        weights, squares_b, useful, squares_u = over_batch(
            lambda transition: self.terms(online, target, transition, gamma), batch
        )  # (B, n)
        useful_fraction = jnp.mean(useful)
        if self.useful_share:
            of_b, of_u = jnp.sum(weights * squares_b), jnp.sum(useful * squares_u)
            loss = jnp.mean(weights) * of_b + useful_fraction * of_u
        else:
            loss = jnp.mean(weights * squares_b + useful * squares_u)
        return loss, {"useful_fraction": useful_fraction}

    def terms(
        self, online: LogicalNetwork, target: LogicalNetwork, transition: Trajectory, gamma: float
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """For each agent `(n,)` the weight and squared error of q_B, and those of q_U, in one transition."""
        observation, following = (
            jax.tree.map(lambda leaf, t=t: leaf[t], transition.observation) for t in range(2)
        )
        reward, discount, actions = transition.reward[0], transition.discount[0], transition.actions[0]
        next_values = mask_unavailable(target.unbiased(following), following.action_mask)
        y = td_target(reward, discount, gamma, jnp.max(next_values, axis=-1))
        frozen = mask_unavailable(target.utilities(observation), observation.action_mask)
        useful = others_greedy(played_greedily(frozen, actions))  # (n,)
        error_b = y - chosen(online.utilities(observation), actions)
        error_u = y - chosen(online.unbiased(observation), actions)
        weights = logical_weights(error_b, useful, self.alpha, self.second_if == "if")
        return weights, jnp.square(error_b), useful.astype(jnp.float32), jnp.square(error_u)
