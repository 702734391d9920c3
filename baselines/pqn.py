"""PQN: Q-learning without replay and without a target network, from many environments side by side.

Gallici et al. (2024), "Simplifying deep temporal difference learning" (arXiv 2407.04811), with any method
whose loss is a mean over steps: independent learners, and mixers of utilities.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from baselines.parts import Agents, EpsilonGreedy, FeedForwardAgents, Optimiser
from baselines.q_learning import QLearner, StepMethod
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Learner, LearnerState, Metrics, Params, periods
from jaxmarl_fac.experience import Clock, Trajectory, over_batch, take, take_steps
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.memory import Rollout
from jaxmarl_fac.settings import Count
from jaxmarl_fac.values import masked_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class PQN(QLearner):
    """Q-learning from rollouts, each learned from by several passes in minibatches and then forgotten.

    Targets are TD(lambda) returns of the network as it was before the update (section 4.1); what keeps them
    from running away is the layer norm of the agents' networks. Agents without a memory learn from single
    steps in random order, recurrent ones from whole rollouts, which they unroll from the memory that they had
    at their start.

    Attributes:
        rollout_length: steps of each environment in one update.
        epochs: passes through each rollout.
        minibatches: parts that the steps, or the rollouts of recurrent agents, are divided into in each pass.

    Raises:
        BadInputError: for rollouts of one step with a `td_lambda` above 0.
    """

    method: StepMethod
    agents: FeedForwardAgents = Agents(layer_norm=True)
    optimiser: Optimiser = Optimiser(optimiser="radam", max_grad_norm=10.0)
    exploration: EpsilonGreedy = EpsilonGreedy(epsilon_end=0.1, epsilon_steps=2000)
    rollout_length: Count = 16
    epochs: Count = 4
    minibatches: Count = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rollout_length == 1 and self.method.td_lambda > 0:
            raise BadInputError("td_lambda above 0 looks further than one step: raise rollout_length above 1")

    @property
    def keeps_utilities(self) -> bool:
        """Not for recurrent agents, whose memory after a rollout has to be found anyway."""
        return not self.recurrent

    @property
    def single_steps(self) -> int:
        return 0 if self.recurrent else self.rollout_length // self.minibatches

    def bind(self, game: GameSpec, num_envs: int = 1) -> Learner:
        self.method.check(game, self)
        what, samples = "steps of its rollouts", num_envs * self.rollout_length
        if self.recurrent:
            what, samples = "rollouts of its environments, as agents are recurrent", num_envs
        if samples % self.minibatches:
            raise BadInputError(
                f"minibatches must divide the {samples} {what}, which {self.minibatches} does not: change it "
                "or num_envs"
            )
        method, memory, module = self.method, Rollout(self.rollout_length), self.network(game)

        def init(key: jax.Array) -> LearnerState:
            params = self.initial_params(game, key)
            return LearnerState(params, (), self.optimiser.init(params))

        def returns(params: Params, batch: Trajectory) -> jax.Array:
            """The targets `(E, T)` or `(E, T, n)`."""
            network: Any = module.bind(params)

            def of_one(trajectory: Trajectory) -> jax.Array:
                if self.keeps_utilities:  # of the parameters that have acted, which are still the same
                    last = jax.tree.map(lambda leaf: leaf[-1:], trajectory.observation)
                    features = jnp.concatenate([trajectory.extras, network.utilities(last)])
                else:
                    features = network.unroll(trajectory)  # (T + 1, n, A)
                return method.returns(network, features, features, trajectory, self.gamma)

            return over_batch(of_one, batch)  # type: ignore[no-any-return]

        def loss(params: Params, batch: Trajectory, targets: jax.Array) -> tuple[jax.Array, Metrics]:
            network: Any = module.bind(params)

            def of_one(trajectory: Trajectory, y: jax.Array) -> tuple[jax.Array, Metrics]:
                return method.losses_towards(network, network.unroll(trajectory), trajectory, y)

            values, metrics = over_batch(of_one, batch, targets)  # (B, T)
            mean = functools.partial(masked_mean, mask=batch.mask)
            return mean(values), jax.tree.map(mean, metrics)

        def update(
            state: LearnerState, batch: Trajectory, clock: Clock, key: jax.Array
        ) -> tuple[LearnerState, Metrics]:
            targets = returns(state.params, batch)

            def on_part(carry: tuple[Params, Any], rows: jax.Array) -> tuple[Any, Metrics]:
                params, opt_state = carry
                if self.recurrent:
                    part = take(batch, rows), targets[rows]
                else:
                    of_steps = targets.reshape(samples, 1, *targets.shape[2:])
                    part = take_steps(batch, rows), of_steps[rows]
                (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(params, *part)
                stepped = self.optimiser.step(params, gradients, opt_state, clock.progress)
                return stepped, {"loss": value, **metrics}

            orders = jax.vmap(lambda key: jax.random.permutation(key, samples))(
                jax.random.split(key, self.epochs)
            )  # (epochs, samples)
            rows = orders.reshape(self.epochs * self.minibatches, -1)
            (params, opt_state), metrics = jax.lax.scan(on_part, (state.params, state.opt_state), rows)
            return LearnerState(params, (), opt_state), jax.tree.map(jnp.mean, metrics)

        return Learner(memory, periods(memory, game, num_envs), init, *self.acting(game), update)
