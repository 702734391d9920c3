"""Thesis, chapter 5: equations as printed, each against what it should be, by a number."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.belief.bounds import JOINT
from experiments.claims.belief.chains import tiger, weather
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.errata import Erratum, Shown, show
from jaxmarl_fac.report.figures import bar_counts, panels
from jaxmarl_fac.report.verdicts import TOLERANCE, Part, Rule
from jaxmarl_fac.soft import belief, operators
from jaxmarl_fac.soft.belief import Chain

#: log P(O|r) of a reward of 8 where 10 is the most, with temperature 1.
LOG_OPTIMAL = 8.0 - 10.0
#: Values of two actions with a uniform prior.
Q = np.array([1.0, 2.0])
#: Particles of the posterior of 5.16.
K = 10

TWICE = "P(O given r) enters the weight once (5.19, 5.20, 5.24)"
ACTION = "the transition may leave out the last action (5.4)"
SIGN = "the ELBO is minus the mean log weight (5.5)"
RENAMED = "P(O, r given r) is P(O given r) (5.9)"
MASS = "(1/K) Σ W δ with normalised W is a distribution (5.15, 5.16)"
SOFT_VALUE = "V = Σ P exp Q lies between the mean and the largest Q (5.23)"
POLICY = "P exp Q / V sums to 1 with the V that is backed up (5.23, 5.29)"
TARGET = "E Q of the next step is V, in Q's target (5.23)"
RATIO = "the mean of Q - log(prior / π) at the optimal π is V (5.27)"
INDEX = "the weight at the last step T is enough (5.24)"


def chapter(workshop: Workshop) -> Outcome:
    """Every equation in question, as printed and as it should be."""
    with jax.enable_x64(True):
        found = numbers()
    ours: dict[str, Any] = {
        statement: {"as printed": printed, "right": right} for statement, (printed, right) in found.items()
    }
    low, high = Q.mean(), Q.max()
    measured = {statement: abs(printed - right) <= TOLERANCE for statement, (printed, right) in found.items()}
    measured[SOFT_VALUE] = bool(low <= found[SOFT_VALUE][0] <= high)
    figure, axes = panels(1, 1, (12.0, 4.4), "Chapter 5 of the thesis: as printed, and as it should be")
    labels = [f"({statement.rpartition('(')[2]}" for statement in found]
    bar_counts(
        axes[0, 0],
        labels,
        {
            "as printed": [printed for printed, _ in found.values()],
            "right": [right for _, right in found.values()],
        },
        value_format="{:.2f}",
    )
    axes[0, 0].tick_params(axis="x", labelsize="small", labelrotation=12)
    wrong = [statement for statement in found if not measured[statement]]
    why = (
        f"{len(wrong)} of {len(found)} equations need a correction; 5.9's slip is one of notation. For "
        f"example 5.4 without the last action believes {found[ACTION][0]:.6f} where Bayes' rule gives "
        f"{found[ACTION][1]:.6f}, and the target of 5.27 is {found[RATIO][0]:.6f} instead of "
        f"{found[RATIO][1]:.6f}."
    )
    return Outcome(figure, dict.fromkeys(found, True), ours, measured, why)


@functools.cache
def numbers() -> dict[str, tuple[float, float]]:
    """By statement the number that the printed equation gives, and the right one."""
    evidence = math.log(JOINT.sum())
    chain = weather().chain
    log_evidence = np.asarray(belief.bayes_filter(chain).log_evidence)
    heard = tiger((1, 1)).chain
    # The tiger stays while the agent listens, and is placed anew by either of the other two actions.
    unconditional = jnp.eye(2) / 3 + jnp.full((2, 2), 1 / 3)
    blind = Chain(heard.prior, jnp.stack([heard.transition[0], unconditional]), heard.likelihood)
    value = float(operators.log_mean_exp(jnp.asarray(Q), 0.5, 1.0))
    policy = np.asarray(operators.tilted_policy(jnp.asarray(Q), 0.5, 1.0))
    expected, divergence = float(policy @ Q), float(policy @ np.log(policy / 0.5))
    partition = float(np.exp(Q).mean())
    chances = np.array([0.5, 0.5])  # of rewards 8 and 10
    optimal = np.exp(np.array([LOG_OPTIMAL, 0.0]))
    joint = optimal[:, None] * np.eye(2)  # P(O, r'|r), whose second argument repeats the first
    weights = np.full(K, 1 / K)
    return {
        TWICE: (evidence + 2 * LOG_OPTIMAL, evidence + LOG_OPTIMAL),
        ACTION: tuple(float(belief.bayes_filter(each).belief[-1, 0]) for each in (blind, heard)),  # type: ignore[dict-item]
        SIGN: (float(-log_evidence.mean()), float(log_evidence.mean())),
        RENAMED: (float(chances @ joint.sum(1)), float(chances @ optimal)),
        MASS: (float(weights.sum() / K), 1.0),
        SOFT_VALUE: (partition, value),
        POLICY: (partition / value, 1.0),
        TARGET: (expected, value),
        RATIO: (expected + divergence, value),
        INDEX: (float(log_evidence[-1]), float(log_evidence.sum())),
    }


def _erratum(number: str, place: str, statement: str, printed: str, right: str, sentence: str) -> Erratum:
    """One of them for the register, with `{printed}` and `{right}` in the sentence."""

    def check() -> Shown:
        wrong, correct = numbers()[statement]
        return show(abs(wrong - correct) > TOLERANCE, sentence, printed=wrong, right=correct)

    return Erratum(f"thesis-{number}", "Thesis, chapter 5", place, printed, right, check)


STATEMENTS = (TWICE, ACTION, SIGN, RENAMED, MASS, SOFT_VALUE, POLICY, TARGET, RATIO, INDEX)

CLAIMS = (
    Claim(
        "errata",
        "Thesis, chapter 5",
        "The equations of the probabilistic public agent hold as they are printed.",
        Rule(tuple(map(Part, STATEMENTS)), given=f"Each on a small example in float64, to {TOLERANCE:g}: "),
        {"smoke": "5 s", "quick": "5 s", "paper": "5 s"},
        chapter,
    ),
)

ERRATA = (
    _erratum(
        "5.4",
        "Equation 5.4",
        ACTION,
        "p(h'|h)",
        "p(h'|h, a), as the state moves with the last action",
        "Tiger after two growls on the left: the filter without the action believes {printed:.6f}, Bayes' "
        "rule "
        "{right:.6f}.",
    ),
    _erratum(
        "5.5",
        "Equation 5.5",
        SIGN,
        "an evidence lower bound, with a minus sign",
        "a loss, minus the bound",
        "On a hidden chain of three steps the mean of the printed log weights is {printed:.6f}, above 0; "
        "the mean "
        "log evidence of a step is {right:.6f}.",
    ),
    _erratum(
        "5.16",
        "Equations 5.15 and 5.16",
        MASS,
        "(1/K) Σ W δ with W that sum to 1",
        "Σ W δ",
        "With ten particles the printed weights sum to {printed:.6f} instead of {right:g}.",
    ),
    _erratum(
        "5.19",
        "Equations 5.19, 5.20 and 5.24",
        TWICE,
        "P(O|r) twice",
        "once",
        "A reward of 8 where 10 is the most: log P(O|r) = -2 counts twice, which makes the log weight "
        "{printed:.6f} "
        "instead of {right:.6f}.",
    ),
    _erratum(
        "5.23-value",
        "Equation 5.23",
        SOFT_VALUE,
        "V = Σ P exp Q",
        "V = log Σ P exp Q",
        "Q = (1, 2), uniform prior: {printed:.6f}, above the largest Q; right is {right:.6f}.",
    ),
    _erratum(
        "5.23-policy",
        "Equations 5.23 and 5.29",
        POLICY,
        "π = P exp Q / V",
        "π = P exp(Q - V)",
        "Q = (1, 2), uniform prior: with the V that is backed up the printed policy sums to {printed:.6f}.",
    ),
    _erratum(
        "5.23-target",
        "Equation 5.23, Bellman target",
        TARGET,
        "the Bellman target takes the mean of Q",
        "V",
        "Q = (1, 2), uniform prior: E Q = {printed:.6f}, V = {right:.6f}.",
    ),
    _erratum(
        "5.24",
        "Equation 5.24, indices",
        INDEX,
        "the weight at the last step, w_T",
        "the product of the weights of all steps",
        "On a hidden chain of three steps the last weight's log evidence is {printed:.6f}, that of all "
        "steps {right:.6f}.",
    ),
    _erratum(
        "5.27",
        "Equation 5.27",
        RATIO,
        "Q - log(prior/π)",
        "Q - log(π/prior)",
        "Q = (1, 2), uniform prior, optimal policy: the printed target of V is {printed:.6f} instead of "
        "{right:.6f}.",
    ),
)
