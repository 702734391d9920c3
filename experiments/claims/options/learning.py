"""Learned soft options beside exact ones: the worked examples, and random games."""

from collections.abc import Mapping
from typing import Any

import jax

import baselines
from envs.option_mdp import OptionMDP, coordination_options, draw_option_mdp, two_state_options
from experiments.claims.options.learned import Errors, errors_of, exact_solution, game_of_lane, tables_of
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Every, Part, Rule

#: By learner: the worked example, its γ, and the number of agents.
LEARNERS: dict[str, tuple[OptionMDP, float, int]] = {
    "soft-options": (two_state_options(), 0.9, 1),
    "delayed-options": (coordination_options(), 0.5, 2),
}
GAMES, STATES, ACTIONS, OPTIONS = 20, 3, 2, 2
NEAR_VALUES, NEAR_POLICIES = 0.05, 0.01


def example_experiment(learner: str, scale: str, seeds: tuple[int, ...]) -> Experiment:
    """The learner on its worked example."""
    env, gamma, _ = LEARNERS[learner]
    return Experiment(
        algorithm=baselines.make(learner, gamma=gamma),
        environment=env,
        seeds=seeds,
        env_steps=200 if scale == "smoke" else 4000,
        evaluations=1,
        evaluation_episodes=1,
    )


def random_experiment(learner: str, scale: str) -> Experiment:
    """The learner on random games, one seed on each."""
    _, _, agents = LEARNERS[learner]
    count = 2 if scale == "smoke" else GAMES

    def draw(key: jax.Array) -> Any:
        return draw_option_mdp(key, STATES, (ACTIONS,) * agents, OPTIONS)

    # Learners see samples of random transitions: they need many, more than updates.
    steps = 400 if scale == "smoke" else 64_000
    return Experiment(
        algorithm=baselines.make(learner, gamma=0.8, replay_size=steps),
        environment=jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(11), count)),
        games=count,
        seeds=(0,),
        env_steps=steps,
        num_envs=32,
        evaluations=1,
        evaluation_episodes=1,
    )


def train(workshop: Workshop, name: str, experiment: Experiment) -> list[Errors]:
    """The errors of every lane."""
    result = workshop.train(name, experiment)
    return [
        errors_of(learned, exact_solution(experiment.algorithm, game_of_lane(experiment, lane)))
        for lane, learned in enumerate(tables_of(experiment, result))
    ]


def learning(workshop: Workshop) -> Outcome:
    """Largest distances of values and divergences of policies, after training."""
    seeds = workshop.seeds(smoke=2, quick=10, paper=10)
    found: dict[str, dict[str, list[Errors]]] = {}
    for learner in LEARNERS:
        found[learner] = {
            "worked example": train(
                workshop, f"example-{learner}", example_experiment(learner, workshop.scale, seeds)
            ),
            "random games": train(workshop, f"random-{learner}", random_experiment(learner, workshop.scale)),
        }
    measured: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    for learner, by_game in found.items():
        example = by_game["worked example"]
        near = [both_near(each) for each in by_game["random games"]]
        measured |= {
            _values(learner): max(float(each.values) for each in example),
            _policies(learner): max(float(each.divergence) for each in example),
            _games(learner): int(sum(near)),
        }
        ours[learner] = {
            name: {
                "largest distance of values": [float(each.values) for each in errors],
                "largest divergence of policies": [float(each.divergence) for each in errors],
            }
            for name, errors in by_game.items()
        }
    total = len(next(iter(found.values()))["random games"])
    why = "; ".join(
        f"{learner}: values within {measured[_values(learner)]:.0e} and policies within "
        f"{measured[_policies(learner)]:.0e} nats on the worked example ({len(seeds)} seeds), both near on "
        f"{measured[_games(learner)]} of {total} random games"
        for learner in LEARNERS
    )
    paper = {"values": "none are given", "policies": "none are given"}
    return Outcome(_draw(found), paper, ours, measured, f"{why}.")


def both_near(errors: Errors) -> bool:
    """Whether values and policies are."""
    return bool(errors.values < NEAR_VALUES and errors.divergence < NEAR_POLICIES)


def _draw(found: Mapping[str, Mapping[str, list[Errors]]]) -> Any:
    figure, axes = panels(1, len(found), (5.0, 4.0), "Learned against exact: every table of every agent")
    for place, (learner, by_game) in zip(axes[0], found.items(), strict=True):
        for shade, (name, errors) in zip((PALETTE[3], PALETTE[0]), by_game.items(), strict=True):
            kind = "seeds" if name == "worked example" else "games"
            place.scatter(
                [each.values for each in errors],
                [max(float(each.divergence), 1e-9) for each in errors],
                s=22,
                alpha=0.7,
                color=shade,
                label=f"{name} ({len(errors)} {kind})",
            )
        place.axvline(NEAR_VALUES, color="0.45", linestyle="--", linewidth=1)
        place.axhline(NEAR_POLICIES, color="0.45", linestyle="--", linewidth=1)
        place.set_xscale("log")
        place.set_yscale("log")
        place.set(
            title=learner,
            xlabel="largest distance of a value from the exact one",
            ylabel="largest KL of a policy (nats)",
        )
        place.legend(fontsize="small", frameon=False)
        place.grid(alpha=0.25)
    return figure


def _values(learner: str) -> str:
    return f"worked example, all seeds: the largest distance of a value of {learner} from the exact one"


def _policies(learner: str) -> str:
    return f"the largest KL of a policy of {learner} from the exact one"


def _games(learner: str) -> str:
    return f"random games, of {GAMES}, on which both are as near for {learner}"


CLAIMS = (
    Claim(
        "learning",
        "Thesis, section 4.3: equations 4.22 to 4.28 and 4.29 to 4.41, corrected",
        "Soft actor-critics over options learn the closed forms, alone and with options communicated one "
        "step late.",
        Rule(
            tuple(
                part
                for learner in LEARNERS
                for part in (
                    Every(
                        (
                            Part(_values(learner), below=NEAR_VALUES),
                            Part(_policies(learner), below=NEAR_POLICIES),
                        )
                    ),
                    Part(_games(learner), at_least=18),
                )
            ),
        ),
        {"smoke": "1 min", "quick": "4 min", "paper": "4 min"},
        learning,
    ),
)
