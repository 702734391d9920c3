"""Parts that learners are composed of: agents, replay, optimiser and exploration, each with its settings."""

import dataclasses
from typing import Annotated, Literal

import flax.linen as nn
import jax
import optax

from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Params
from jaxmarl_fac.experience import Clock
from jaxmarl_fac.exploration import linear_epsilon
from jaxmarl_fac.memory import Episodes, Memory, Transitions
from jaxmarl_fac.networks import AgentNetwork, RecurrentAgentNetwork
from jaxmarl_fac.settings import Constraint, Count, OffOrAbove, Positive, Probability, Settings, Widths


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedForwardAgents(Settings):
    """The agents' networks.

    Attributes:
        hidden: widths of the agent network's hidden layers.
        share_parameters: whether all agents have one network; False gives each parameters of its own.
        agent_ids: whether agents see a one-hot id. Without, agents that share parameters act alike where they
            see the same.
        layer_norm: whether hidden layers have a layer norm before each ReLU.
    """

    hidden: Widths = (32, 32)
    share_parameters: bool = True
    agent_ids: bool = True
    layer_norm: bool = False

    def network(self, num_actions: int) -> nn.Module:
        """Of all agents."""
        return AgentNetwork(num_actions, self.hidden, self.share_parameters, self.agent_ids, self.layer_norm)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agents(FeedForwardAgents):
    """The agents' networks, with or without a memory.

    Attributes:
        recurrent: agents with a GRU above their hidden layers; they learn from episodes or rollouts.
        last_actions: whether recurrent agents see their own last actions. Others never do.

    Raises:
        BadInputError: for agents without a memory that are not to see their last actions.
    """

    recurrent: bool = False
    last_actions: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.last_actions and not self.recurrent:
            raise BadInputError(
                "last_actions can be switched off for recurrent agents only: others never see their own"
            )

    def network(self, num_actions: int) -> nn.Module:
        """Of all agents."""
        if not self.recurrent:
            return super().network(num_actions)
        return RecurrentAgentNetwork(
            num_actions,
            self.hidden,
            self.share_parameters,
            self.agent_ids,
            self.last_actions,
            self.layer_norm,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransitionReplay(Settings):
    """Uniform replay of transitions.

    Attributes:
        batch_size: transitions in one update.
        replay_size: transitions kept.
        learning_starts: environment steps taken before the first update.
    """

    batch_size: Count = 32
    replay_size: Count = 20_000
    learning_starts: Count = 32

    consumes = "transitions"
    update_period = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.memory()  # refuses a batch that is larger than the replay

    def memory(self) -> Memory:
        """What the learner is fed from."""
        return Transitions(self.replay_size, self.batch_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay(TransitionReplay):
    """Uniform replay of transitions or of whole episodes.

    Attributes:
        consumes: "transitions", or whole "episodes"; `batch_size` and `replay_size` count those.
        update_period: steps of each environment between updates.
    """

    consumes: Literal["transitions", "episodes"] = "transitions"  # type: ignore[assignment]
    update_period: Count = 1

    def memory(self) -> Memory:
        """What the learner is fed from."""
        kind = Episodes if self.consumes == "episodes" else Transitions
        return kind(self.replay_size, self.batch_size)


def check_reach(replay: TransitionReplay, recurrent: bool, td_lambda: float) -> None:
    """Refuse single transitions to learners that look further.

    Raises:
        BadInputError: for recurrent agents, or a `td_lambda` above 0, that are not to learn from episodes.
    """
    if replay.consumes == "episodes":
        return
    if td_lambda > 0:
        raise BadInputError("td_lambda above 0 looks further than one transition: consume episodes")
    if recurrent:
        raise BadInputError("recurrent agents learn from what came before: consume episodes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimiser(Settings):
    """Adam, RAdam or RMSprop on the mean loss of a batch.

    Attributes:
        learning_rate: the optimiser's step size.
        learning_rate_schedule: "constant", or "linear" down to 0 at the end of training.
        optimiser: "adam", "rmsprop" as in PyMARL, or "radam" as in PQN (Liu et al., 2020).
        adam_eps: Adam's and RAdam's epsilon (QTRAN's release has 1.5e-4).
        rmsprop_decay: RMSprop's decay of the mean squared gradient.
        rmsprop_eps: RMSprop's epsilon, which is added to the root.
        max_grad_norm: gradients are clipped to this global norm; 0 turns clipping off.
    """

    learning_rate: Positive = 5e-4
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    optimiser: Literal["adam", "rmsprop", "radam"] = "adam"
    adam_eps: Positive = 1e-8
    rmsprop_decay: Annotated[float, Constraint("at least 0 and below 1", lambda decay: 0 <= decay < 1)] = 0.99
    rmsprop_eps: Positive = 1e-5
    max_grad_norm: OffOrAbove = 0.0

    def init(self, params: Params) -> optax.OptState:
        """The optimiser's state at the start."""
        return self._direction().init(params)

    def step(
        self, params: Params, gradients: Params, opt_state: optax.OptState, progress: jax.Array
    ) -> tuple[Params, optax.OptState]:
        """Parameters after one step; `progress` in [0, 1] drives the learning rate."""
        directions, opt_state = self._direction().update(gradients, opt_state, params)
        rate = self.learning_rate * (1 - progress if self.learning_rate_schedule == "linear" else 1.0)
        return jax.tree.map(lambda param, step: param - rate * step, params, directions), opt_state

    def _direction(self) -> optax.GradientTransformation:
        scale = optax.scale_by_adam(eps=self.adam_eps)
        if self.optimiser == "radam":
            scale = optax.scale_by_radam(eps=self.adam_eps)
        if self.optimiser == "rmsprop":
            scale = optax.scale_by_rms(self.rmsprop_decay, self.rmsprop_eps, eps_in_sqrt=False)
        return (
            optax.chain(optax.clip_by_global_norm(self.max_grad_norm), scale) if self.max_grad_norm else scale
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpsilonGreedy(Settings):
    """Exploration that falls linearly.

    Attributes:
        epsilon_start: exploration at the first step.
        epsilon_end: exploration after `epsilon_steps` environment steps, decaying linearly.
        epsilon_steps: see `epsilon_end`.
    """

    epsilon_start: Probability = 1.0
    epsilon_end: Probability = 1.0
    epsilon_steps: Count = 1

    def epsilon(self, clock: Clock) -> jax.Array:
        """The probability `()` of a random action."""
        return linear_epsilon(clock.env_steps, self.epsilon_start, self.epsilon_end, self.epsilon_steps)

    @property
    def always_random(self) -> bool:
        """Whether it is known, before anything runs, that utilities play no part in acting."""
        return all(isinstance(each, float) and each == 1 for each in (self.epsilon_start, self.epsilon_end))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoltzmannEpisodes(Settings):
    """Episodes in which all agents act by Boltzmann policies, `softmax(Q_i / temperature)`, at every step.

    In the others they act as without. In the pursuit of Logical Team Q-learning's release (`experiment.py`,
    `ltql.py`) half of the games are played so, and the others greedily.

    Attributes:
        boltzmann_share: the chance that an episode is one of them; 0 leaves them out.
        temperature_start: temperature at the first step, in units of the utilities.
        temperature_end: temperature after `temperature_steps` environment steps, decaying linearly.
        temperature_steps: see `temperature_end`.
    """

    boltzmann_share: Probability = 0.0
    temperature_start: Positive = 0.5
    temperature_end: Positive = 0.05
    temperature_steps: Count = 1

    @property
    def never(self) -> bool:
        """Whether it is known, before anything runs, that there are none."""
        return isinstance(self.boltzmann_share, float) and self.boltzmann_share == 0

    def coin(self, key: jax.Array) -> jax.Array:
        """Whether an episode that begins is one of them, `()` bool."""
        return jax.random.bernoulli(key, self.boltzmann_share)

    def temperature(self, clock: Clock) -> jax.Array:
        """The temperature `()` of all agents."""
        return linear_epsilon(
            clock.env_steps, self.temperature_start, self.temperature_end, self.temperature_steps
        )
