"""Thesis, chapters 2 and 3: what `theory` found to be false beside `errata`, each in its smallest example."""

import jax.numpy as jnp
import numpy as np

from experiments.claims.opponents.errata import BACKGROUND, EXACT, THEORY
from experiments.claims.opponents.theory_inference import FIRST, coins_of_the_tutorial, largest_part_two
from jaxmarl_fac.exact.equilibria import max_min
from jaxmarl_fac.exact.friends_and_foes import correlated_friends, independent_friends
from jaxmarl_fac.exact.latent_variables import coins_em, coins_log_joint, log_evidence
from jaxmarl_fac.report.errata import Erratum, Shown, show
from jaxmarl_fac.soft import operators, stages

# Chapter 2


def predictive() -> Shown:
    """Two coins of equal odds."""
    chances, odds = np.asarray(FIRST), np.full(2, 0.5)
    return show(
        chances.sum() > 1,
        "Coins of .6 and .5, equally likely: the left-hand side is {printed:.2f}, no probability, and the "
        "right-hand side {right:.2f}.",
        printed=chances.sum(),
        right=chances @ odds,
    )


def evidence_at(chances: jnp.ndarray) -> float:
    """The log-likelihood of the tutorial's tosses."""
    return float(log_evidence(coins_log_joint(coins_of_the_tutorial(), chances)))


def second_part() -> Shown:
    """What maximising part 2 does to the likelihood of the tutorial's tosses."""
    first = jnp.asarray(FIRST)
    before, step = evidence_at(first), evidence_at(coins_em(coins_of_the_tutorial(), first, 1)[1])
    printed = evidence_at(largest_part_two(coins_of_the_tutorial(), first))
    return show(
        printed < before < step,
        "Five rounds of ten tosses of two coins: from chances of .6 and .5 log P(X) = {before:.6f} falls to "
        "{printed:.6f} where part 2, the KL that the E-step made 0, is largest; EM's step, of part 1, leads "
        "to {step:.6f}.",
        before=before,
        printed=printed,
        step=step,
    )


def m_step() -> Shown:
    """The printed M-step maximises the likelihood itself."""
    path = coins_em(coins_of_the_tutorial(), jnp.asarray(FIRST), 300)
    step, limit = evidence_at(path[1]), evidence_at(path[-1])
    return show(
        limit > step + EXACT,
        "With θ of step k everywhere the integral is log P(X), whose largest value here, {limit:.6f} at "
        "({last[0]:.6f}, {last[1]:.6f}), takes EM many steps; its first leads to ({one[0]:.6f}, "
        "{one[1]:.6f}) and {step:.6f}.",
        limit=limit,
        step=step,
        one=path[1],
        last=path[-1],
    )


def step_sizes() -> Shown:
    """Constant steps without noise."""
    reached, gamma, path = 0.0, 0.9, []
    for _ in range(600):
        reached += 0.5 * (1 + gamma * reached - reached)
        path.append(1 / (1 - gamma) - reached)
    return show(
        abs(path[-1]) < EXACT,
        "One state, one action, r = 1, γ = .9, no noise: steps of 1/2, whose squares have an infinite sum, "
        "are {first:.1f} from 1/(1 - γ) after one visit, {early:.4f} after 100 and less than 1e-9 after 600.",
        first=path[0],
        early=path[99],
    )


def friends_apart() -> Shown:
    """Two friends against one foe."""
    stage = jnp.zeros((2, 2, 2)).at[0, 0, 0].set(4.0).at[1, 1, 1].set(4.0)
    values = [float(solve(stage, (0, 1)).value) for solve in (independent_friends, correlated_friends)]
    apart, together = values
    return show(
        apart < together - EXACT,
        "R = 4 where all three players do the same, else 0; 1 and 2 are friends: independently they are sure "
        "of {printed:.6f}, with a common coin of {right:.6f}.",
        printed=apart,
        right=together,
    )


# Chapter 3


def naive_distribution() -> Shown:
    """The policy that makes (3.44) best, and that of (3.20)."""
    q = jnp.zeros((2, 2)).at[0, 0].set(1.0)
    best = stages.independent_play(q, 1.0, 1.0).policy
    printed, right = operators.naive_variational(best, 0.5), stages.independent_play(q, 2.0, -1.0).policy
    return show(
        abs(float(printed[0] - right[0])) > EXACT,
        "R = [[1, 0], [0, 0]], β = (2, -1), uniform priors: the ELBO over (3.44) is best at π = "
        "({printed[0]:.6f}, {printed[1]:.6f}), as if the other helped; (3.20) has "
        "({right[0]:.6f}, {right[1]:.6f}).",
        printed=printed,
        right=right,
    )


def foe_limit() -> Shown:
    """Matching pennies in the limit of Balancing-Q."""
    pennies = jnp.asarray([[1.0, -1.0], [-1.0, 1.0]])
    soft = float(stages.agent_first(pennies, jnp.inf, -jnp.inf).value)
    return show(
        soft < float(max_min(pennies)[0]) - EXACT,
        "Matching pennies: for β → ∞, β' → -∞ Balancing-Q's value is {soft:g}, as the other sees the "
        "action; the foe value is {foe:g}.",
        soft=soft,
        foe=max_min(pennies)[0],
    )


ERRATA = (
    Erratum(
        "thesis-2.2",
        BACKGROUND,
        "Equation 2.2",
        "∫ P(y|x, X, Y, θ) dθ",
        "∫ P(y|x, X, Y, θ) P(θ|X, Y) dθ",
        predictive,
    ),
    Erratum(
        "thesis-m-step",
        BACKGROUND,
        "Between 2.7 and 2.8",
        "θ maximises part 2 of 2.6",
        "part 1, the ELBO, as said after 2.8",
        second_part,
    ),
    Erratum(
        "thesis-2.8",
        BACKGROUND,
        "Equation 2.8",
        "θ^(k) in all three places, and maximised over",
        "P_θ(X, z), with q = P_θ^(k)(z|X) fixed, maximised over θ",
        m_step,
    ),
    Erratum(
        "thesis-theorem-3",
        BACKGROUND,
        "Theorem 3",
        "converges if and only if Σ α = ∞ and Σ α² < ∞",
        "if: the conditions are sufficient, not necessary",
        step_sizes,
    ),
    Erratum(
        "thesis-2.68-friends",
        BACKGROUND,
        "Equation 2.68, friends",
        "the friends' policies are independent, π_1 ... π_k",
        "a distribution over their joint actions (Littman, 2001)",
        friends_apart,
    ),
    Erratum(
        "thesis-3.44",
        THEORY,
        "Equation 3.44",
        "π^(1/β)/Z as variational distributions might satisfy the requirement",
        "their optimum is not that of 3.20",
        naive_distribution,
    ),
    Erratum(
        "thesis-3.5.1",
        THEORY,
        "Section 3.5.1",
        "Balancing-Q is the soft version of friend-or-foe learning",
        "of Friend-Q; its limit for a foe has a foe who sees the action",
        foe_limit,
    ),
)
