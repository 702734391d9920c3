"""The worker that trains this suite's learners for `benchmark.py peers`."""

# First: it has no effect once JAX is initialised.
import jaxmarl_fac.all_cores  # noqa: F401

# isort: split
import dataclasses
import importlib.metadata
import time
from typing import Any

import flax.linen as nn
import jax

import baselines
import envs
import envs.registry as environments
from baselines.parts import FeedForwardAgents
from baselines.q_learning import QLearner
from experiments.benchmark import Training
from experiments.benchmark_workers import cores, serve
from jaxmarl_fac.experiment import Experiment, seed_numbers
from jaxmarl_fac.loop import train
from jaxmarl_fac.networks import AgentNetwork
from jaxmarl_fac.program import Program
from jaxmarl_fac.settings import leaves

#: Environment steps of a training that is only timed: more than it takes.
ENDLESS = 2**30
#: Timed runs by which the others' length is chosen, the first of one update.
TRIALS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearAgents(FeedForwardAgents):
    """Agents without hidden layers, whatever `hidden` is: JaxMARL's VDN with its settings for MPE."""

    def network(self, num_actions: int) -> nn.Module:
        return AgentNetwork(num_actions, (), self.share_parameters, self.agent_ids)


class Learner:
    """A program that is trained further by every request."""

    def __init__(self) -> None:
        self._training: Training
        self._updates, self._iterations_per_update = 0, 0

    def load(self) -> dict[str, Any]:
        """What it runs on."""
        return {
            "cores": cores(),
            "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
            "versions": {
                name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")
            },
        }

    def compile(self, ours: dict[str, Any], seeds: int, seconds: float) -> dict[str, Any]:
        """Compile a training, and train until every update learns.

        Args:
            ours: what, see `our_settings`.
            seeds: how many train together.
            seconds: target of what is timed.
        """
        experiment = experiment_of(ours, seeds, ENDLESS)
        start = time.perf_counter()
        program = Program(experiment)
        self._training = Training(program)
        program.compile_chunk(self._training.lanes)
        compile_seconds = time.perf_counter() - start
        schedule = program.schedule
        self._iterations_per_update = ours["iterations_per_update"]
        self._training.run(schedule.warmup)
        self._updates = 1
        for _ in range(TRIALS):
            self._updates = max(1, round(seconds * self._updates / self.time()["whole"]))
        settings = {name: leaf.value for name, leaf in leaves(experiment.algorithm).items()}
        passes = settings.get("epochs", 1) * settings.get("minibatches", 1)
        rollout = ours["num_envs"] * self._iterations_per_update
        learned = schedule.updates(schedule.warmup + self._iterations_per_update)
        return {
            "compile_seconds": compile_seconds,
            "num_envs": experiment.num_envs,
            "env_steps_per_update": rollout,
            "gradient_steps_per_update": learned * passes,
            "batch_size": settings["batch_size"]
            if "batch_size" in settings
            else rollout // settings["minibatches"],
            "replay_size": settings.get("replay_size", 0),
            "parameters": sum(
                leaf.size // len(leaf) for leaf in jax.tree.leaves(self._training.lanes.learner.params)
            ),
        }

    def time(self) -> dict[str, Any]:
        """Seconds of so many updates."""
        start = time.perf_counter()
        self._training.run(self._updates * self._iterations_per_update)
        jax.block_until_ready(self._training.lanes)
        return {"before": 0.0, "whole": time.perf_counter() - start, "updates": self._updates}

    def returns(
        self, ours: dict[str, Any], seeds: int, env_steps: int, evaluations: int, episodes: int
    ) -> dict[str, Any]:
        """Train all seeds together, and tell the mean greedy returns, evaluations by seeds."""
        experiment = dataclasses.replace(
            experiment_of(ours, seeds, env_steps), evaluations=evaluations, evaluation_episodes=episodes
        )
        curves = train(experiment).history.arrays()["episode_return"][1:]  # the first one is before training
        return {"returns": curves.tolist()}


def experiment_of(ours: dict[str, Any], seeds: int, env_steps: int) -> Experiment:
    """The experiment that `our_settings` describes."""
    settings = dict(ours["settings"])
    linear = not settings["hidden"]
    if linear:
        del settings["hidden"]
    algorithm: Any = baselines.make(ours["algo"], environments.lookup(ours["env"]).family, **settings)
    if linear:
        assert isinstance(algorithm, QLearner)
        algorithm = dataclasses.replace(algorithm, agents=LinearAgents())
    return Experiment(
        algorithm=algorithm,
        environment=envs.make(ours["env"], **ours["game"]),
        seeds=seed_numbers(seeds),
        env_steps=env_steps,
        num_envs=ours["num_envs"],
    )


if __name__ == "__main__":
    serve(Learner())
