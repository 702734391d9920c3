"""Thesis, figures 3.1 and 3.2: tabular learners on the thesis's game."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from baselines import rules
from baselines.opponent_modelling import BalancingRule, PR2Rule, RommeoThesisRule
from baselines.probes import joint_policy
from baselines.two_player import Match
from envs.matrix_games import THESIS_PAYOFF
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.curves import draw_curves, first_crossing
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Every, Part, Rule, labelled
from jaxmarl_fac.soft import stages
from jaxmarl_fac.statistics import Interval, bootstrap_interval, wilson_interval

THESIS = np.asarray(THESIS_PAYOFF, float)

#: The thesis states neither the number of steps nor of seeds beyond five; its curves end once they are flat.
STEPS, ROLL_OUTS = 300, 50
#: The reward of a run is that of its last steps.
LAST_STEPS = 10
#: Steps at which the curves are compared with an independent simulation in NumPy.
MOMENTS = (50, 100, 150, 200, 300)
SIMULATED = {
    "cooperative": (3.46, 4.75, 7.40, 9.54, 10.0),
    "balancing-q": (2.38, 2.09, 1.91, 1.84, 2.0),
    "misrepresenting": (2.39, 1.93, 1.21, 0.85, 1.0),
}
#: How far the mean of the seeds may be from the simulation's: both have standard errors of about .03.
TOLERANCE = 0.15


class Curve(NamedTuple):
    """One pair of learners over training."""

    reward: np.ndarray  # (T, seeds), of the first agent, mean over the roll-outs of each step
    rows: np.ndarray  # (T, seeds, A), its policy after each step
    columns: np.ndarray  # (T, seeds, B), the other's

    @property
    def last(self) -> np.ndarray:
        """Each seed's mean reward over the last steps, `(seeds,)`."""
        return np.asarray(self.reward[-LAST_STEPS:].mean(0))


def play(workshop: Workshop, name: str, row: rules.Rule, column: rules.Rule, env_id: str) -> Curve:
    """Appendix B.3: each step learns from one of 50 roll-outs, and its reward is the mean of all."""
    steps = workshop.choose(smoke=20, quick=STEPS, paper=STEPS)
    experiment = Experiment(
        algorithm=Match(row=row, column=column, learn_from="first"),
        environment=envs.make(env_id),
        seeds=workshop.seeds(smoke=5, quick=200, paper=1000),
        env_steps=steps * ROLL_OUTS,
        num_envs=ROLL_OUTS,
        evaluations=steps,
        evaluation_episodes=1,
        probe=joint_policy,
    )
    arrays = workshop.train(f"thesis-{name}", experiment).history.arrays()
    # Before the first step there is no reward.
    return Curve(arrays["row_reward"][1:], arrays["row_policy"][1:, :, 0], arrays["column_policy"][1:, :, 0])


def summary(curve: Curve) -> dict[str, Any]:
    """Final rewards and joint actions of a pair."""
    joint = np.stack([curve.rows[-1].argmax(1), curve.columns[-1].argmax(1)], 1)  # (seeds, 2)
    pairs, counts = np.unique(joint, axis=0, return_counts=True)
    return {
        "final_reward": bootstrap_interval(curve.last, np.mean),
        "reward_at_step": {step: float(curve.reward[step - 1].mean()) for step in moments(curve)},
        "likeliest_joint_actions": {
            f"({a + 1}, {b + 1})": wilson_interval(int(count), len(joint))
            for (a, b), count in zip(pairs, counts, strict=True)
        },
    }


def moments(curve: Curve) -> list[int]:
    """The steps to compare at, as far as the curve goes."""
    return [step for step in MOMENTS if step <= len(curve.reward)]


def as_simulated(curve: Curve, name: str) -> bool:
    """Whether the seeds' mean is where an independent simulation of the same set-up has it."""
    steps = moments(curve)
    means = [curve.reward[step - 1].mean() for step in steps]
    return bool(steps) and bool(np.allclose(means, SIMULATED[name][: len(steps)], rtol=0, atol=TOLERANCE))


def decided(curve: Curve) -> float:
    """How probable the first agent's likeliest action is at the end, mean over seeds; at first a third."""
    return float(curve.rows[-1].max(1).mean())


def exact_limits() -> dict[str, float]:
    """Rewards of the first agent in the limit ω → ∞ with exact values."""
    with jax.enable_x64(True):
        q, inf = jnp.asarray(THESIS), jnp.inf
        helped = stages.agent_first(q, inf, inf).policy  # PR2's and ROMMEO's row agent
        helper = stages.opponent_first(q, inf, inf).opponent
        careful = stages.agent_first(q, inf, -inf).policy
        adversary = stages.opponent_first(q, inf, -inf).opponent
        deceived = stages.opponent_first(
            -q, inf, inf
        ).opponent  # its payoff is -q, and it models the other as cooperative
        pairs = {
            "cooperative": (helped, helper),
            "balancing-q": (careful, adversary),
            "misrepresenting": (helped, adversary),
            "both misrepresenting": (helped, deceived),
        }
        return {name: float(row @ q @ column) for name, (row, column) in pairs.items()}


def fig3_1(workshop: Workshop) -> Outcome:
    """PR2 and ROMMEO in the cooperative game."""
    players: dict[str, rules.Rule] = {"pr2": PR2Rule(), "rommeo": RommeoThesisRule()}
    curves = {
        name: play(workshop, f"cooperative-{name}", rule, rule, "matrix-thesis")
        for name, rule in players.items()
    }
    limit = exact_limits()["cooperative"]
    pr2, rommeo = curves["pr2"], curves["rommeo"]
    ours: dict[str, Any] = {name: summary(curve) for name, curve in curves.items()}
    gain = bootstrap_interval((rommeo.reward - pr2.reward).mean(0), np.mean)  # the same seeds in both
    apart = float(np.abs(rommeo.rows - pr2.rows).max())
    # What five seeds can show: ROMMEO's next five against PR2's five, both over all steps.
    five = min(5, len(pr2.last))
    groups = len(pr2.last) // five
    fives = {
        name: curve.reward[:, : five * groups].mean(0).reshape(groups, five).mean(1)
        for name, curve in curves.items()
    }
    ahead = np.roll(fives["rommeo"], -1) - fives["pr2"]
    ours["rommeo minus pr2"] = {
        "reward, same seeds, all steps": gain,
        "largest difference of a policy's probability": apart,
        "reward, five other seeds each": {
            "rommeo ahead": wilson_interval(int((ahead > 0).sum()), groups),
            "typical size": float(np.abs(ahead).mean()),
        },
    }
    ours["exact limit"] = limit
    ours["policy printed in B.1, without exp"] = printed_policies()

    third = [float((curve.rows[-1].argmax(1) == 2).mean()) for curve in curves.values()]
    measured: dict[str, Any] = {
        **labelled(FINAL, {name: ours[name]["final_reward"] for name in curves}),
        LIMIT: limit,
        **{_third(name): part for name, part in zip(curves, third, strict=True)},
        **{_simulation(name): as_simulated(c, "cooperative") for name, c in curves.items()},
        GAIN: gain,
        DECIDED: max(map(decided, curves.values())),
    }

    figure, axes = panels(1, 2, (5.2, 3.6), f"Thesis figure 3.1: cooperative game, {len(pr2.last)} seeds")
    rewards = {name: curve.reward for name, curve in curves.items()}
    draw_curves(
        axes[0, 0],
        rewards,
        "reward",
        {"pr2": limit},
        "mean and 95 % band; dotted: exact limit",
        dashes=("-", "--"),  # the curves coincide
    )
    draw_curves(
        axes[0, 1],
        {"pr2": rewards["pr2"][:, :five], "rommeo": np.roll(rewards["rommeo"], -five, 1)[:, :five]},
        "reward",
        title=f"as the thesis draws it: {five} seeds each",
    )
    why = (
        f"Both end at {ours['pr2']['final_reward'].value:.3f} (exact limit {limit:g}) with action 3 on "
        f"{min(third):.0%} of seeds. ROMMEO minus PR2 is {gain.value:.2g} [{gain.low:.2g}, {gain.high:.2g}] "
        f"with the same seeds: with uniform priors both are one policy (they differ by {apart:.1g} at "
        f"most), so "
        '"slightly better" cannot follow from the algorithms. Of runs with five other seeds each ROMMEO '
        f"seems ahead in {(ahead > 0).mean():.0%}, by {np.abs(ahead).mean():.2f} on average either way."
    )
    paper = {"final_reward": 10, "rommeo": "slightly better than PR2", "seeds": 5}
    return Outcome(figure, paper, ours, measured, why)


def printed_policies() -> dict[str, list[float]]:
    """B.1 as printed, π ∝ P Q(a), and with the exp that it lacks, at ω = 10 and the true payoffs."""
    with jax.enable_x64(True):
        backup = stages.agent_first(jnp.asarray(THESIS), 1.0, 1.0)  # β ω = .1 * 10
        values = backup.first_values
        return {"printed": (values / jnp.sum(values)).tolist(), "with exp": backup.policy.tolist()}


def zero_sum(workshop: Workshop) -> dict[str, Curve]:
    """The three pairs of figure 3.2."""
    pairs: dict[str, tuple[rules.Rule, rules.Rule]] = {
        "balancing-q": (BalancingRule(), BalancingRule()),
        "misrepresenting": (PR2Rule(), BalancingRule()),
        "both misrepresenting": (PR2Rule(), PR2Rule()),
    }
    return {
        name: play(workshop, f"zero-sum-{name.replace(' ', '-')}", *pair, "matrix-thesis-zero-sum")
        for name, pair in pairs.items()
    }


def fig3_2a(workshop: Workshop) -> Outcome:
    """Balancing-Q on both sides of the zero-sum game."""
    curve = play(workshop, "zero-sum-balancing-q", BalancingRule(), BalancingRule(), "matrix-thesis-zero-sum")
    limit = exact_limits()["balancing-q"]
    ours: dict[str, Any] = {"balancing-q": summary(curve), "exact limit": limit}
    final = ours["balancing-q"]["final_reward"]
    saddle = ours["balancing-q"]["likeliest_joint_actions"].get("(1, 1)", Interval(0.0, 0.0, 0.0))
    measured = {
        FINAL: final,
        LIMIT: limit,
        SADDLE: saddle,
        _simulation("Balancing-Q"): as_simulated(curve, "balancing-q"),
        DECIDED: decided(curve),
    }
    figure, axes = panels(1, 2, (5.2, 3.6), f"Thesis figure 3.2a: zero-sum game, {len(curve.last)} seeds")
    draw_curves(
        axes[0, 0],
        {"balancing-q": curve.reward},
        "reward of agent i",
        {"balancing-q": limit},
        "mean and 95 % band; dotted: exact limit",
    )
    axes[0, 0].set_ylim(0, 4)
    draw_policies(axes[0, 1], curve)
    low = float(curve.reward.mean(1).min())
    settled = [first_crossing(policies[:, :, 0], 0.75) for policies in (curve.rows, curve.columns)]
    ours["step when action 1 has probability .75"] = dict(zip(("agent i", "agent j"), settled, strict=True))
    why = (
        f"Ends at {final.value:.3f} [{final.low:.3f}, {final.high:.3f}] (exact limit {limit:g}), with (1, "
        f"1), "
        f"the saddle point, the likeliest on {saddle.value:.0%} of seeds. On the way the mean falls to "
        f"{low:.2f}: "
        f"agent i plays action 1 with probability .75 from step {settled[0]} on, agent j from {settled[1]} "
        f"on."
    )
    return Outcome(figure, {"final_reward": 2, "joint action": [1, 1]}, ours, measured, why)


def fig3_2b(workshop: Workshop) -> Outcome:
    """PR2, which models its adversary as cooperative."""
    curves = zero_sum(workshop)
    limits = exact_limits()
    ours: dict[str, Any] = {name: summary(curve) for name, curve in curves.items()}
    ours["exact limits"] = limits
    wrong, right = (ours[name]["final_reward"] for name in ("misrepresenting", "balancing-q"))
    third = float((curves["misrepresenting"].rows[-1].argmax(1) == 2).mean())
    measured = {
        **labelled(FINAL, {"PR2": wrong, "Balancing-Q": right}),
        _third("PR2"): third,
        _simulation("PR2"): as_simulated(curves["misrepresenting"], "misrepresenting"),
        DECIDED: decided(curves["misrepresenting"]),
    }
    seeds = len(curves["misrepresenting"].last)
    figure, axes = panels(1, 2, (5.2, 3.6), f"Thesis figure 3.2b: zero-sum game, {seeds} seeds")
    labels = {
        "misrepresenting": "pr2 against balancing-q",
        "balancing-q": "balancing-q",
        "both misrepresenting": "pr2",
    }
    draw_curves(
        axes[0, 0],
        {labels[name]: curve.reward for name, curve in curves.items()},
        "reward of agent i",
        {labels[name]: limits[name] for name in curves},
        "mean and 95 % band; dotted: exact limits",
    )
    draw_policies(axes[0, 1], curves["misrepresenting"])
    both = ours["both misrepresenting"]["final_reward"]
    why = (
        f"PR2 against a Balancing-Q adversary ends at {wrong.value:.3f} [{wrong.low:.3f}, {wrong.high:.3f}] "
        f"with "
        f"action 3 on {third:.0%} of seeds; Balancing-Q at {right.value:.3f}. The exact limit is "
        f'R[3, 1] = {limits["misrepresenting"]:g}, not "almost 0": 0 needs column 2, the best reply to '
        f"action 3. "
        f"PR2 on both sides is at {both.value:.2f} after {len(curves['balancing-q'].reward)} steps "
        f"(limit {limits['both misrepresenting']:g})."
    )
    return Outcome(figure, {"final_reward": "almost 0", "balancing-q": 2}, ours, measured, why)


def draw_policies(axes: Any, curve: Curve) -> None:
    """Mean policies of both agents over training."""
    for policies, dashes, agent in ((curve.rows, "-", "i"), (curve.columns, "--", "j")):
        for action, colour in enumerate(PALETTE[: policies.shape[-1]]):
            steps = np.arange(1, len(policies) + 1)
            axes.plot(
                steps,
                policies[:, :, action].mean(1),
                dashes,
                color=colour,
                label=f"agent {agent}, action {action + 1}",
            )
    axes.set(xlabel="step", ylabel="probability", title="mean policies", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.25)
    axes.legend(fontsize="x-small", frameon=False, ncols=2, loc="best")


FINAL, LIMIT = "reward of the last 10 of 300 steps", "the exact limit"
SADDLE = "share of seeds whose likeliest joint action is (1, 1)"
GAIN = "rommeo's reward over all steps less pr2's on the same seeds"
DECIDED = "mean probability of an agent's likeliest action at the end"
#: It is a third before training.
LEARNED = Part(DECIDED, at_least=0.5)
MEANS = "Means over seeds, 95 % intervals: "


def _third(name: str) -> str:
    return f"share of {name}'s seeds whose likeliest action is 3"


def _simulation(name: str) -> str:
    steps = ", ".join(map(str, MOMENTS))
    return f"{name}'s rewards at steps {steps} within {TOLERANCE:g} of an independent simulation's"


CLAIMS = (
    Claim(
        "fig3_1",
        "Thesis, figure 3.1",
        "In the cooperative game PR2 and ROMMEO learn to earn 10, ROMMEO slightly better than PR2.",
        Rule(
            (
                Every(
                    tuple(
                        part
                        for name in ("pr2", "rommeo")
                        for part in (
                            Part(f"{FINAL} of {name}", equals=LIMIT, within=0.05),
                            Part(_third(name), at_least=0.99),
                            Part(_simulation(name)),
                        )
                    )
                ),
                Part(f"interval of {GAIN}", GAIN, above=0),
            ),
            learned=LEARNED,
            given=MEANS,
        ),
        {"smoke": "20 s", "quick": "1 min on 2 cores", "paper": "3 min on 2 cores"},
        fig3_1,
    ),
    Claim(
        "fig3_2a",
        "Thesis, figure 3.2a",
        "In the zero-sum game two Balancing-Q agents reach the Nash equilibrium (1, 1), which pays 2.",
        Rule(
            (
                Part(FINAL, equals=LIMIT, within=0.1),
                Part(SADDLE, at_least=0.95),
                Part(_simulation("Balancing-Q")),
            ),
            learned=LEARNED,
            given=MEANS,
        ),
        {"smoke": "10 s", "quick": "30 s on 2 cores", "paper": "2 min on 2 cores"},
        fig3_2a,
    ),
    Claim(
        "fig3_2b",
        "Thesis, figure 3.2b",
        "PR2, which models its adversary as cooperative, plays action 3 and ends almost at 0, below "
        "Balancing-Q.",
        Rule(
            (
                Part(f"interval of the {FINAL} of PR2", f"{FINAL} of PR2", inside=(0, 1.2)),
                Part(f"{FINAL} of PR2", below=f"{FINAL} of Balancing-Q"),
                Part(_third("PR2"), at_least=0.95),
                Part(_simulation("PR2")),
            ),
            learned=LEARNED,
            given=MEANS,
        ),
        {"smoke": "30 s", "quick": "1 min on 2 cores", "paper": "4 min on 2 cores"},
        fig3_2b,
    ),
)
