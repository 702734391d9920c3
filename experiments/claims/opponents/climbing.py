"""ROMMEO's figure 1: tabular learners on the iterated climbing game."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

import envs
from baselines.iterated_games import FMQRule, JointActionRule, WoLFRule
from baselines.opponent_modelling import PR2Rule, RommeoRule
from baselines.probes import joint_policy
from baselines.two_player import SelfPlay
from envs.matrix_games import CLIMBING_PAYOFF
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.curves import BETTER_THAN_RANDOM, draw_curves, first_crossing, gain_over_random
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.verdicts import Either, Part, Rule, labelled
from jaxmarl_fac.statistics import bootstrap_interval, wilson_interval

EPISODES = 300
#: The authors' library: nearly whole steps, one action in ten random, values from [0, 1).
LIBRARY: dict[str, Any] = {
    "learning_rate": 1.0,
    "rate_half_life": 10_000.0,
    "gamma": 0.95,
    "epsilon": 0.1,
    "initial_spread": 1.0,
}
#: As the authors anneal FMQ in tables and all their deep learners: 500 e^{-k/10} + .1 at episode k.
ANNEALED = {"temperature": 500.0, "temperature_schedule": "exponential"}


def learners_of_figure(annealed: bool) -> dict[str, SelfPlay]:
    """All learners of the figure; with annealing where they have a temperature."""
    annealing: dict[str, Any] = ANNEALED if annealed else {}
    # PR2's temperature is 1, or 500 e^{-k/10}.
    beta, growth = (1 / 500, float(np.exp(0.1))) if annealed else (1.0, 1.0)
    return {
        "rommeo-q": SelfPlay(rule=RommeoRule(**annealing)),
        "rommeo-q-emp": SelfPlay(rule=RommeoRule(model="empirical", **annealing)),
        "pr2-q": SelfPlay(rule=PR2Rule(**LIBRARY, beta=beta, beta_growth=growth)),
        "jal": SelfPlay(rule=JointActionRule()),
        "wolf-phc": SelfPlay(rule=WoLFRule()),
        "fmq": SelfPlay(rule=FMQRule()),
    }


class PairResult(NamedTuple):
    """Results of a pair of learners on the climbing game."""

    optimal: np.ndarray  # (T, seeds), the probability of (A, A)
    joint: np.ndarray  # (seeds, 2), the likeliest actions at the end
    other: np.ndarray  # (T, seeds), of A by the second agent
    expected: np.ndarray | None  # (T, seeds), of A in the first agent's model of it


def train_pair(workshop: Workshop, name: str, algorithm: SelfPlay) -> PairResult:
    """Episodes of one step each."""
    episodes = workshop.choose(smoke=20, quick=EPISODES, paper=EPISODES)
    experiment = Experiment(
        algorithm=algorithm,
        environment=envs.make("matrix-climbing"),
        seeds=workshop.seeds(smoke=5, quick=500, paper=2000),
        env_steps=episodes,
        evaluations=episodes,
        evaluation_episodes=1,
        probe=joint_policy,
    )
    arrays = workshop.train(f"climbing-{name}", experiment).history.arrays()
    row, column = arrays["row_policy"][:, :, 0, 0], arrays["column_policy"][:, :, 0, 0]
    model = arrays["row_model"][:, :, 0, 0] if "row_model" in arrays else None
    joint = np.stack([arrays[f"{side}_policy"][-1, :, 0].argmax(1) for side in ("row", "column")], 1)
    return PairResult(row * column, joint, column, model)


def rommeo_fig1(workshop: Workshop) -> Outcome:
    """The probability of the optimum, with the library's temperature and with an annealed one."""
    settings = {"library": learners_of_figure(annealed=False), "annealed": learners_of_figure(annealed=True)}
    climbs: dict[str, dict[str, PairResult]] = {"library": {}, "annealed": {}}
    for setting, learners in settings.items():
        for name, learner in learners.items():
            same = setting == "annealed" and learner == settings["library"][name]
            climbs[setting][name] = (
                climbs["library"][name] if same else train_pair(workshop, f"{name}-{setting}", learner)
            )
    ours: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    for setting, found in climbs.items():
        finals = {name: bootstrap_interval(c.optimal[-1], np.mean) for name, c in found.items()}
        pair: tuple[Any, Any] = found["rommeo-q"].expected, found["rommeo-q"].other
        model, real = (first_crossing(curve) for curve in pair)
        ours[setting] = {
            "final_probability_of_optimum": finals,
            "mean_over_episodes": {
                name: bootstrap_interval(c.optimal.mean(0), np.mean) for name, c in found.items()
            },
            "episode_of_half": {name: first_crossing(c.optimal) for name, c in found.items()},
            "episode_when_A_is_half": {"opponent model": model, "opponent": real},
            "episode_when_A_is_0.9": [first_crossing(curve, 0.9) for curve in pair],
            "ends_at": {
                name: {
                    actions: wilson_interval(int((c.joint == joint).all(1).sum()), len(c.joint))
                    for actions, joint in (("(A, A)", (0, 0)), ("(B, B)", (1, 1)))
                }
                for name, c in found.items()
            },
        }
        measured |= labelled(f"{setting}: P(A, A)", finals)
        measured[f"{setting}: {MODEL}"] = np.inf if model is None else model
        measured[f"{OPPONENT}, {setting}"] = np.inf if real is None else real
    payoff = np.asarray(CLIMBING_PAYOFF, float)
    earned = [payoff[tuple(c.joint.T)] for found in climbs.values() for c in found.values()]
    measured |= gain_over_random(earned, payoff.mean())
    library, annealed = (
        {name: final.value for name, final in ours[s]["final_probability_of_optimum"].items()} for s in climbs
    )
    stuck = ours["library"]["ends_at"]["rommeo-q"]
    half, most = (ours["annealed"][f"episode_when_A_is_{level}"] for level in ("half", "0.9"))
    why = (
        "P(A, A) at the end with the library's constants: "
        + ", ".join(f"{name} {value:.2f}" for name, value in library.items())
        + f"; ROMMEO-Q ends at (A, A) on {stuck['(A, A)'].value:.0%} and at (B, B) on "
        f"{stuck['(B, B)'].value:.0%} of seeds. Annealed from 500: "
        + ", ".join(f"{name} {annealed[name]:.2f}" for name in ("rommeo-q", "rommeo-q-emp", "pr2-q"))
        + ". There the mean probability of A stays above .5 from episode "
        f"{half['opponent model']} on in ROMMEO-Q's model of the other and from {half['opponent']} on in its "
        f"policy, above .9 from {most[0]} and {most[1]}."
    )
    figure = _draw_climbs(climbs)
    paper = {"rommeo-q": "P(A, A) to 1, above all others", "opponent model": "reaches A before the opponent"}
    return Outcome(figure, paper, ours, measured, why)


def _draw_climbs(climbs: Mapping[str, Mapping[str, PairResult]]) -> Any:
    seeds = climbs["library"]["rommeo-q"].optimal.shape[1]
    figure, axes = panels(1, 3, (4.9, 3.7), f"ROMMEO figure 1: iterated climbing game, {seeds} seeds")
    titles = {"library": "constants of the authors' library", "annealed": "temperatures annealed from 500"}
    for column, (setting, found) in enumerate(climbs.items()):
        curves = {name: c.optimal for name, c in found.items()}
        draw_curves(axes[0, column], curves, "P(A, A)", title=titles[setting], xlabel="episode")
        axes[0, column].set_ylim(-0.02, 1.02)
    axes[0, 1].get_legend().remove()  # the same as beside it
    rommeo = climbs["annealed"]["rommeo-q"]
    for values, label, dashes in (
        (rommeo.expected, "agent 1's model of agent 2", "-"),
        (rommeo.other, "agent 2", "--"),
    ):
        axes[0, 2].plot(np.mean(values, axis=1), dashes, label=label)  # type: ignore[arg-type]
    axes[0, 2].set(xlabel="episode", ylabel="P(A)", ylim=(-0.02, 1.02), title="ROMMEO-Q, annealed")
    axes[0, 2].grid(alpha=0.25)
    axes[0, 2].legend(fontsize="small", frameon=False)
    return figure


MODEL = "episode from which the mean P(A) of rommeo-q's model stays above .5"
OPPONENT = "that of the opponent"


def _parts(setting: str) -> tuple[Part, ...]:
    mine = f"{setting}: P(A, A) of rommeo-q"
    others = tuple(
        f"{setting}: P(A, A) of {name}" for name in learners_of_figure(annealed=False) if name != "rommeo-q"
    )
    return (
        Part(mine, at_least=0.95),
        Part(mine, above=others),
        Part(f"{setting}: {MODEL}", before=f"{OPPONENT}, {setting}"),
    )


RULE = Rule(
    _parts("library"),
    partly=Either((*_parts("library"), *_parts("annealed"))),
    learned=BETTER_THAN_RANDOM,
    given="After 300 episodes, with the constants of the authors' library or with temperatures annealed as "
    "500 e^{-k/10} + .1; means over seeds, 95 % intervals; greedy play is that of the likeliest actions: ",
)

CLAIMS = (
    Claim(
        "rommeo_fig1",
        "ROMMEO (Tian et al., 2019), figure 1",
        "In the iterated climbing game ROMMEO-Q finds (A, A), clearly above JAL, WoLF-PHC, PR2-Q, FMQ and "
        "ROMMEO-Q-EMP; its opponent model reaches A before the opponent does.",
        RULE,
        {"smoke": "1 min", "quick": "2 min on 2 cores", "paper": "5 min on 2 cores"},
        rommeo_fig1,
    ),
)
