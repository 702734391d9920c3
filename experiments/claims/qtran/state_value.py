"""QTRAN, theorem 1: the state value V_jt that is learned where agents do not see everything."""

from typing import Any

import numpy as np

import baselines
from baselines.probes import tables_of_states
from envs.team_mdp import TeamMDP, team_mdp
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.loop import Result
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Part, Rule, labelled, share
from jaxmarl_fac.statistics import bootstrap_interval

#: What playing one's own bit pays by the two bits: no sum of a number for each.
WORTH = np.array([[8.0, 4.0], [2.0, 6.0]])
#: What is paid if one agent alone plays its own bit; if none does, nothing is.
ALONE = -12.0
STEPS = 10_000
#: States before the end, and what is asked of them.
BITS, TABLES = 4, ("q_jt", "v_jt", "utilities", "greedy_actions")
#: Without a state value: the sum of utilities has to equal the joint value by itself.
WITHOUT = "qtran-base without V_jt"
LEARNERS = {
    "qtran-base": baselines.make("qtran-base"),
    "qtran-alt": baselines.make("qtran-alt"),
    WITHOUT: baselines.make("qtran-base", state_value="off"),
}
DISTANCE = "median over seeds of the largest distance of V_jt from max Q_jt - sum of max Q_i"
GREEDY = "share of seeds whose greedy actions are optimal in all four states"
SEEDS = "median over seeds of the largest error of Q_jt"


def private_bits() -> TeamMDP:
    """Each of two agents sees one of two random bits, and should play it; one step.

    States 0 to 3 are the bits in order, state 4 is the end.
    """
    reward = np.zeros((5, 2, 2))
    for state, (first, second) in enumerate(np.ndindex(2, 2)):
        reward[state] = ALONE
        reward[state, 1 - first, 1 - second] = 0.0
        reward[state, first, second] = WORTH[first, second]
    transition = np.zeros((5, 2, 2, 5))
    transition[..., 4] = 1.0
    return team_mdp(
        transition,
        reward,
        start=[0.25, 0.25, 0.25, 0.25, 0],
        terminal=[0, 0, 0, 0, 1],
        observation=[[0, 0, 1, 1, 0], [0, 1, 0, 1, 0]],
        time_limit=1,
    )


def train(workshop: Workshop, name: str) -> Result:
    """Table 3's settings, epsilon = 1."""
    experiment = Experiment(
        algorithm=LEARNERS[name],
        environment=private_bits(),
        seeds=workshop.seeds(smoke=2, quick=16, paper=100),
        env_steps=workshop.choose(smoke=200, quick=STEPS, paper=2 * STEPS),
        evaluations=1,
        evaluation_episodes=1,
        probe=tables_of_states,
    )
    return workshop.train(f"private-bits-{name.replace(' ', '-')}", experiment)


def state_value(workshop: Workshop) -> Outcome:
    """V_jt of trained networks against what equation 5 makes of their Q_jt and Q_i."""
    payoff = np.asarray(private_bits().reward)[:BITS]
    optimal = np.stack(np.unravel_index(payoff.reshape(BITS, -1).argmax(1), payoff.shape[1:]), -1)  # (4, 2)
    ours: dict[str, Any] = {}
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    distances, errors, shares = {}, {}, {}
    for name in LEARNERS:
        last = {
            key: table[:, :BITS] for key, table in train(workshop, name).history.last.items() if key in TABLES
        }
        best = last["q_jt"].max((2, 3))  # (seeds, 4)
        wanted = best - last["utilities"].max(-1).sum(-1)
        learned = last["v_jt"][..., 0, 0]  # the same for all joint actions
        pairs[name] = wanted, learned
        largest = np.abs(learned - wanted).max(1)
        error = np.abs(last["q_jt"] - payoff).max((1, 2, 3))
        distances[name], errors[name] = np.median(largest), np.median(error)
        shares[name] = share((last["greedy_actions"] == optimal).all((1, 2)))
        ours[name] = {
            "largest distance of V_jt": bootstrap_interval(largest),
            "largest error of Q_jt": bootstrap_interval(error),
            "greedy actions optimal in all states": shares[name],
            "V_jt, mean over seeds": learned.mean(0),
        }
    measured = labelled(DISTANCE, distances) | labelled(SEEDS, errors) | labelled(GREEDY, shares)
    figure, axes = panels(1, len(LEARNERS), (4.2, 3.6), "V_jt where each agent sees its own bit only")
    for place, (name, (wanted, learned)) in zip(axes[0], pairs.items(), strict=True):
        for state, bits in enumerate(np.ndindex(2, 2)):
            place.scatter(
                wanted[:, state],
                learned[:, state],
                s=16,
                alpha=0.7,
                color=PALETTE[state],
                label=f"bits {bits}",
            )
        ends = np.asarray(place.get_xlim())
        place.plot(ends, ends, color="0.45", linewidth=1, linestyle="--", zorder=0)
        place.set(title=name, xlabel="max $Q_{jt}$ less the sum of max $Q_i$", ylabel="learned $V_{jt}$")
        place.grid(alpha=0.25)
    axes[0, 0].legend(fontsize="small", frameon=False)
    why = "; ".join(
        f"{name}: V_jt is off by {distances[name]:.3f}, Q_jt by {errors[name]:.3f}, greedy play optimal on "
        f"{shares[name].value:.0%} of seeds"
        for name in LEARNERS
    )
    why += ". What can be gained is no sum over the two bits, which the sum of utilities would have to be."
    return Outcome(figure, {"equation 5": "V_jt = max Q_jt - sum Q_i(ū_i)"}, ours, measured, why)


def _of(label: str, name: str) -> str:
    return f"{label} of {name}"


CLAIMS = (
    Claim(
        "state_value",
        "QTRAN, equation 5 and theorem 1",
        "With partial observations V_jt makes up for the gap between max Q_jt and the sum of the utilities.",
        Rule(
            (
                *(
                    part
                    for name in ("qtran-base", "qtran-alt")
                    for part in (
                        Part(_of(DISTANCE, name), at_most=0.25),
                        Part(_of(GREEDY, name), at_least=0.9),
                    )
                ),
                Part(_of(DISTANCE, WITHOUT), at_least=0.5),
            ),
            learned=Part(_of(SEEDS, "qtran-base"), at_most=1.0),
            given="In a game of one step in which each of two agents sees its own bit, after 10,000 steps "
            "with epsilon = 1: ",
        ),
        {"smoke": "30 s", "quick": "1 min on 2 cores", "paper": "4 min on 2 cores"},
        state_value,
    ),
)
