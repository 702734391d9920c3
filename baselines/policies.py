"""How agents with stochastic policies act: networks whose outputs are logits, with or without a memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Observation
from jaxmarl_fac.algorithm import Act, ActGreedily, Begin, Params
from jaxmarl_fac.experience import Clock, Decision
from jaxmarl_fac.exploration import sample_actions
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.networks import AgentMemory
from jaxmarl_fac.policy_gradients import log_policy
from jaxmarl_fac.values import greedy_actions, mask_unavailable

#: The share `()` of a policy that is uniform over the available actions, at a moment of training; None for
#: policies without one.
RandomShare = Callable[[Clock], jax.Array | None]


class Play(NamedTuple):
    """The functions of a learner by which its agents act."""

    begin: Begin
    act: Act
    act_greedily: ActGreedily


def play(module: Any, game: GameSpec, recurrent: bool, random_share: RandomShare) -> Play:
    """Agents that sample from their policies; greedily they take the most probable action.

    Args:
        module: an `AgentsNetwork`, whose first A outputs of each agent are logits.
        game: what is played.
        recurrent: whether the agents have a memory.
        random_share: see `RandomShare`.
    """

    def outputs_and_memory(params: Params, carry: Any, observation: Observation) -> tuple[jax.Array, Any]:
        """The networks' outputs `(n, A + k)`, and a function from actions `(n,)` to the new memory."""
        network = module.bind(params)
        if not recurrent:
            return network.utilities(observation), lambda actions: carry
        outputs, hidden = network.agent(observation.agents_view, carry)
        return outputs, lambda actions: AgentMemory(hidden, actions)

    def begin(params: Params, observation: Observation, key: jax.Array) -> Any:
        return module.agent.fresh(game.num_agents) if recurrent else ()

    def act(params: Params, carry: Any, observation: Observation, clock: Clock, key: jax.Array) -> Decision:
        outputs, remember = outputs_and_memory(params, carry, observation)
        logs = log_policies(outputs, observation.action_mask, random_share(clock))
        actions = sample_actions(key, jnp.exp(logs))
        return Decision(actions, remember(actions))

    def act_greedily(params: Params, carry: Any, observation: Observation, key: jax.Array) -> Decision:
        outputs, remember = outputs_and_memory(params, carry, observation)
        logits = outputs[:, : game.num_actions]
        actions = greedy_actions(mask_unavailable(logits, observation.action_mask))
        return Decision(actions, remember(actions))

    return Play(begin, act, act_greedily)


def log_policies(outputs: jax.Array, masks: jax.Array, random_share: jax.Array | None = None) -> jax.Array:
    """Log-probabilities `(..., A)` by outputs `(..., A + k)`, whose first A are logits.

    Args:
        outputs: of the agents' networks.
        masks: `(..., A)`, which actions are available.
        random_share: `()`, the share of the policy that is uniform over these; None for none.
    """
    logs = log_policy(outputs[..., : masks.shape[-1]], masks)
    if random_share is None:
        return logs
    # Of logarithms, whose gradient is finite where the policy's own probability underflows.
    uniform = jnp.log(random_share) - jnp.log(jnp.sum(masks, axis=-1, keepdims=True))
    return jnp.where(masks, jnp.logaddexp(jnp.log1p(-random_share) + logs, uniform), logs)
