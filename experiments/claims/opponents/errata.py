"""Thesis, chapters 2 and 3, and ROMMEO: what is wrong in print, each with the computation that shows it."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp, rel_entr, softmax

from envs.differential_game import differential_game
from experiments.claims.opponents.theory_balancing import thesis_values
from experiments.claims.opponents.thesis_games import THESIS, exact_limits, printed_policies
from jaxmarl_fac.exact.equilibria import max_min, nash_equilibrium
from jaxmarl_fac.report.errata import Erratum, Shown, show
from jaxmarl_fac.soft import planning, stages

BACKGROUND, THEORY = "Thesis, chapter 2", "Thesis, chapter 3 and appendix B"
ROMMEO = "ROMMEO (Tian et al., 2019)"
EXACT = 1e-9
#: Values of two actions, with a uniform prior.
Q = np.array([1.0, 2.0])
PRIOR = np.full(2, 0.5)

# Chapter 2


def evidence_bound() -> Shown:
    """The bound with and without the logarithm, for the posterior itself."""
    likelihood = np.array([0.7, 0.1])
    evidence = likelihood @ PRIOR
    posterior = likelihood * PRIOR / evidence
    divergence = rel_entr(posterior, PRIOR).sum()
    printed, right = posterior @ likelihood - divergence, posterior @ np.log(likelihood) - divergence
    return show(
        printed > np.log(evidence) + EXACT and abs(right - np.log(evidence)) < EXACT,
        "P(Y|θ) = (.7, .1), uniform prior, q the posterior: E P - KL = {printed:.6f} lies above the log "
        "evidence "
        "{evidence:.6f}, which E log P - KL = {right:.6f} attains.",
        printed=printed,
        right=right,
        evidence=np.log(evidence),
    )


def epsilon_greedy() -> Shown:
    """The chance of the greedy action once ε has fallen."""
    epsilon, actions = 0.05, 4
    printed, right = epsilon + (1 - epsilon) / actions, 1 - epsilon + epsilon / actions
    return show(
        printed < right,
        "ε decays. At ε = .05 and four actions the greedy one has probability {printed:.4f} as printed, "
        "{right:.4f} "
        "as it should.",
        printed=printed,
        right=right,
    )


def double_q() -> Shown:
    """Values of a state that returns to itself, with r = 1."""
    printed = right = 0.0
    for _ in range(1000):
        printed, right = 1 + printed, 1 + 0.9 * right
    return show(
        printed > right + 1,
        "A state that returns to itself, r = 1, γ = .9: after 1,000 backups the printed target is at "
        "{printed:g}, with "
        "γ at {right:.6f}.",
        printed=printed,
        right=right,
    )


def returns() -> Shown:
    """The state that is bootstrapped from at t = 5."""
    t, n, gamma = 5, 2, 0.9
    values = np.arange(10.0)
    printed, right = (gamma ** (n + 1) * values[k] - values[t] for k in (n + 1, t + n + 1))
    return show(
        abs(printed - right) > EXACT,
        "t = 5, n = 2, γ = .9, no rewards, V(s_k) = k: as printed, with V(s_3), the advantage is "
        "{printed:.3f}; with "
        "V(s_8) it is {right:.3f}.",
        printed=printed,
        right=right,
    )


def infinity_norm() -> Shown:
    """The norm of a negative table."""
    values = np.array([-3.0, -1.0])
    return show(
        values.max() < 0,
        "V = (-3, -1): max V = {printed:g}, which is no norm; max |V| = {right:g}.",
        printed=values.max(),
        right=np.abs(values).max(),
    )


def recursive_value() -> Shown:
    """V as an expectation, with and without the logarithm."""
    policy = softmax(Q)
    value = logsumexp(Q, b=PRIOR)
    printed, right = policy @ (Q - policy / PRIOR), policy @ (Q - np.log(policy / PRIOR))
    return show(
        abs(printed - value) > EXACT and abs(right - value) < EXACT,
        "Q = (1, 2), uniform prior: E[Q - π/P] = {printed:.6f}, E[Q - log(π/P)] = {right:.6f} = log E exp Q.",
        printed=printed,
        right=right,
    )


def soft_operator() -> Shown:
    """One backup with β = 2 and γ = 0."""
    beta, reward = 2.0, np.array([0.0, 1.0])
    printed, right = softmax(reward), softmax(beta * reward)
    return show(
        np.abs(printed - right).max() > EXACT,
        "γ = 0, r = (0, 1), β = 2: the policy of (2.48) is ({right[0]:.6f}, {right[1]:.6f}), that of the "
        "printed operator "
        "({printed[0]:.6f}, {printed[1]:.6f}) whatever β is.",
        printed=printed,
        right=right,
    )


def improvement_target() -> Shown:
    """What the policy is projected on."""
    value = logsumexp(Q, b=PRIOR)
    printed = (np.exp(Q) * PRIOR).sum() / value
    return show(
        abs(printed - 1) > EXACT,
        "Q = (1, 2), uniform prior: as printed the target sums to {printed:.6f}, with exp Z in the "
        "denominator, Z = log Σ exp(Q) P, to 1.",
        printed=printed,
    )


def nash_sum() -> Shown:
    """A stage of a zero-sum game with a mixed equilibrium."""
    payoff = np.array([[5.0, 2.0], [-1.0, 6.0]])
    found = jax.jit(nash_equilibrium)(np.stack([payoff, -payoff]))
    printed = np.asarray(found.row)[:, None] * np.asarray(found.column) * payoff
    return show(
        np.abs(printed - float(found.values[0])).max() > EXACT,
        "R = [[5, 2], [-1, 6]] against -R: π = ({row[0]:.1f}, {row[1]:.1f}) and ({column[0]:.1f}, "
        "{column[1]:.1f}), value "
        "{value:.1f}. Without a sum the printed expression depends on the joint action: {one:.2f} at (1, "
        "1), {other:.2f} "
        "at (2, 2).",
        row=found.row,
        column=found.column,
        value=found.values[0],
        one=printed[0, 0],
        other=printed[1, 1],
    )


def nash_contraction() -> Shown:
    """Two nearby games whose selected equilibria are far apart."""
    solve = jax.jit(nash_equilibrium)

    def value(x: float) -> float:
        first = np.array([[3.0, 0.0], [3.0 + x, 1.0]])
        return float(solve(np.stack([first, first.T])).values[0])

    ratios = {x: abs(value(x) - value(-x)) / (2 * x) for x in (0.1, 0.01)}
    return show(
        min(ratios.values()) > 1,
        "R_1 = [[3, 0], [3 + x, 1]], R_2 its transpose: the equilibrium pays {below:g} at x = -.1 and "
        "{above:g} at x = "
        ".1. A change of .2 in one entry moves the operator by a factor of {coarse:g} γ, a change of .02 "
        "by {fine:g} γ.",
        below=value(-0.1),
        above=value(0.1),
        coarse=ratios[0.1],
        fine=ratios[0.01],
    )


def friend_or_foe() -> Shown:
    """The same player among the friends and the foes."""
    right, _ = jax.jit(max_min)(THESIS)
    printed = THESIS.min()  # the minimum is over both policies, whatever the maximum chose
    return show(
        abs(printed - float(right)) > EXACT,
        "The thesis's game, one friend and one foe: with π_k on both sides the minimum is over both "
        "policies, and "
        "the value {printed:g}; against the foe alone it is {right:g}.",
        printed=printed,
        right=right,
    )


def maven_square() -> Shown:
    """The loss at an error of -3 and at 0."""
    printed, right = -3.0, 9.0
    return show(
        printed < 0 < right,
        "Q below its target by 3 has a loss of {printed:g} as printed, less than the 0 of an exact Q, and "
        "{right:g} with "
        "the square.",
        printed=printed,
        right=right,
    )


def maven_entropy() -> Shown:
    """Two latents with one trajectory."""
    joint = np.array([[0.5], [0.5]])  # of z and the trajectory
    of_trajectory = -(joint * np.log(joint / joint.sum(0))).sum()
    of_itself = 0.0  # z is known from a one-to-one function of z
    return show(
        of_trajectory > of_itself,
        "Two latents that lead to one trajectory: H(z|σ(τ)) = {right:.6f}, and the mutual information is "
        "0. A one-to-one "
        "function of z leaves H(z|σ(z)) = {printed:g}, and it would be log 2.",
        right=of_trajectory,
        printed=of_itself,
    )


# Chapter 3


def pr2_and_rommeo() -> Shown:
    """Both on the thesis's game, with uniform priors."""
    first, second = (jax.jit(method)(0.1 * THESIS) for method in (stages.pr2, stages.rommeo))
    apart = np.abs(np.asarray(first.joint) - np.asarray(second.joint)).max()
    return show(
        apart < EXACT,
        "The thesis's game, β = .1: both play ({policy[0]:.6f}, {policy[1]:.6f}, {policy[2]:.6f}) with V = "
        "{value:.6f}; "
        "their joint policies are equal to {exact:.0e}.",
        policy=first.policy,
        value=first.value,
        exact=EXACT,
    )


def almost_zero() -> Shown:
    """The limit of PR2 against a Balancing-Q adversary."""
    limits = exact_limits()
    return show(
        limits["misrepresenting"] > 0.5,
        "In the limit the agent plays action 3 and the adversary column 1: R[3, 1] = {limit:g}. 0 is R[3, "
        "2], for the best "
        "reply to action 3, which the adversary of the experiment does not play. Balancing-Q ends at "
        "{balancing:g}.",
        limit=limits["misrepresenting"],
        balancing=limits["balancing-q"],
    )


def corollary_1() -> Shown:
    """The value of the thesis's game in each order of play."""
    found = thesis_values()
    return show(
        abs(found["agent first"] - found["other first"]) > 1e-6,
        "The thesis's game, β = (.1, -.1): V^i/β^i = {agent:.6f} with the agent first, V^-i/β^-i = "
        "{other:.6f} with the other "
        "first; independent policies have {independent:.6f}, in between.",
        agent=found["agent first"],
        other=found["other first"],
        independent=found["independent"],
    )


def balancing_operator() -> Shown:
    """By how much the operator shrinks the distance of a table and itself plus 1."""
    reward, still = THESIS[None], np.ones((1, 3, 3, 1))

    @jax.jit
    def factor(gamma: float) -> jax.Array:
        model = planning.TwoPlayerModel(jnp.asarray(reward), jnp.asarray(still), jnp.asarray(gamma))

        def operator(q: jax.Array) -> jax.Array:
            return planning.bellman(model, lambda table: stages.agent_first(table, 0.1, -0.1), q)

        return planning.contraction_factor(operator, jnp.asarray(reward), jnp.asarray(reward + 1))

    printed, right = float(factor(1.0)), float(factor(0.9))
    return show(
        printed > 1 - EXACT and abs(right - 0.9) < EXACT,
        "On the thesis's game as a state that returns to itself, a table and itself plus 1 are {printed:g} "
        "apart after the "
        "printed operator, as before, and {right:g} with γ = .9.",
        printed=printed,
        right=right,
    )


def theorem_9() -> Shown:
    """Q before and after the agent's update, in one state."""
    reward, gamma, size = np.array([[2.0, 0.0], [0.0, 1.0]]), 0.5, 2
    means = reward.mean(axis=1)  # of each own action; ρ is the prior, and costs nothing

    def value(policy: np.ndarray) -> float:
        return float((policy @ means - rel_entr(policy, np.full(size, 1 / size)).sum()) / (1 - gamma))

    before = np.full(size, 1 / size)
    after = softmax(means + gamma * value(before))
    rise = gamma * (value(after) - value(before))
    return show(
        rise > EXACT,
        "One state, R = [[2, 0], [0, 1]], γ = .5, β = β' = 1, uniform policies: the agent's update is π = "
        "({policy[0]:.6f}, "
        "{policy[1]:.6f}), and every entry of Q rises by {rise:.6f}.",
        policy=after,
        rise=rise,
    )


def improved_policy() -> Shown:
    """The lengths of what is multiplied."""
    own, other = 2, 3
    return show(
        own != other,
        "With {own} own and {other} other actions, Q^i(s, a^i) has {own} values, and the prior and the "
        "policy that it shall "
        "update have {other}.",
        own=own,
        other=other,
    )


def conditioning() -> Shown:
    """How far the solution's opponent model depends on the agent's action."""
    found = np.asarray(jax.jit(stages.probabilistic_balancing)(THESIS, 0.1, 0.1).opponent)
    return show(
        np.ptp(found, axis=0).max() > EXACT,
        "The thesis's game, β = (.1, .1): by (3.49) the other plays column 3 with probability {one:.6f} "
        "after action 1 and "
        "{three:.6f} after action 3; no ρ(a^-i|s) is both.",
        one=found[0, 2],
        three=found[2, 2],
    )


def sampled_action() -> Shown:
    """The target of (3.58), which no action of the other enters."""
    beta = 0.1
    found = jax.jit(stages.probabilistic_balancing)(THESIS, beta, beta)
    target = float(found.value) + np.log(np.asarray(found.policy) * len(THESIS))  # β'/β = 1, uniform prior
    values = np.asarray(found.action_values)
    return show(
        np.abs(target - values).max() < EXACT,
        "The bracket has no a^-i, so that its mean over a^-i is itself: the thesis's game, β = (.1, .1), "
        "target "
        "({target[0]:.6f}, {target[1]:.6f}, {target[2]:.6f}), which is Q(s, a^i) of (3.49) for the optimal "
        "policy.",
        target=target,
    )


def experiment_policy() -> Shown:
    """The policy at ω = 10."""
    found = printed_policies()
    return show(
        found["printed"][2] < 0.9 < found["with exp"][2],
        "The thesis's game at ω = 10: as printed ({printed[0]:.2f}, {printed[1]:.2f}, {printed[2]:.2f}), "
        "which would not "
        "settle on action 3 as figure 3.1 does; with exp ({right[0]:.3f}, {right[1]:.3f}, {right[2]:.3f}).",
        printed=found["printed"],
        right=found["with exp"],
    )


def joint_index() -> Shown:
    """How much of a table a repeated index reaches."""
    reached = len(np.diag(THESIS))
    return show(
        reached < THESIS.size,
        "Read as they stand the indices reach {reached} of the {size} entries of the thesis's game.",
        reached=reached,
        size=THESIS.size,
    )


# ROMMEO


def differential() -> Shown:
    """The game with the paper's constants and with the release's."""
    first, second = (differential_game(variant) for variant in ("paper", "code"))  # type: ignore[arg-type]
    at = {name: float(game.payoff_of(jnp.zeros(2))) for name, game in (("paper", first), ("code", second))}
    return show(
        abs(at["paper"] - at["code"]) > EXACT,
        "At the start, (0, 0), the paper's reward is {paper:.4f} and the release's {code:.4f}: its local "
        "optimum has much "
        "steeper sides.",
        **at,
    )


def climbing() -> Shown:
    """The bottom-right entry."""
    first, second = 5, 3
    return show(
        first != second,
        "Every other entry pays both agents the same; here they would get {first} and {second}. The "
        "release pays both 5.",
        first=first,
        second=second,
    )


ERRATA = (
    Erratum(
        "thesis-2.4", BACKGROUND, "Equation 2.4", "E P(Y|X, θ) - KL", "E log P(Y|X, θ) - KL", evidence_bound
    ),
    Erratum(
        "thesis-norm", BACKGROUND, "Below 2.18", "the infinity norm of V is max V", "max |V|", infinity_norm
    ),
    Erratum(
        "thesis-2.24",
        BACKGROUND,
        "Equation 2.24",
        "the greedy action with probability ε, else a random one",
        "the other way round",
        epsilon_greedy,
    ),
    Erratum(
        "thesis-2.25", BACKGROUND, "Equation 2.25", "r + Q(s', argmax Q)", "r + γ Q(s', argmax Q)", double_q
    ),
    Erratum("thesis-2.28", BACKGROUND, "Equation 2.28", "V(s_(n+1))", "V(s_(t+n+1))", returns),
    Erratum("thesis-2.51", BACKGROUND, "Equation 2.51", "π/P", "log(π/P), as in 2.50", recursive_value),
    Erratum("thesis-2.52", BACKGROUND, "Equations 2.52 and A.5", "r + γ E V", "βr + γ E V", soft_operator),
    Erratum(
        "thesis-2.53",
        BACKGROUND,
        "Equation 2.53",
        "exp(Q) P / V",
        "exp(Q) P / exp(Z), as in A.7",
        improvement_target,
    ),
    Erratum(
        "thesis-2.66",
        BACKGROUND,
        "Equation 2.66",
        "π^1(s) ... π^n(s) Q^i(s, a)",
        "its sum over joint actions",
        nash_sum,
    ),
    Erratum(
        "thesis-2.67",
        BACKGROUND,
        "Equation 2.67",
        "Nash-Q's operator is a contraction",
        "false in general: a small change of Q may select another equilibrium",
        nash_contraction,
    ),
    Erratum(
        "thesis-2.68",
        BACKGROUND,
        "Equation 2.68",
        "max over π_1, ..., π_k, min over π_k, ..., π_N, and a sum over states",
        "min over π_(k+1), ..., π_N, and a sum over joint actions",
        friend_or_foe,
    ),
    Erratum("thesis-2.77", BACKGROUND, "Equation 2.77", "E[Q - target]", "E[(Q - target)²]", maven_square),
    Erratum("thesis-2.79", BACKGROUND, "Equation 2.79", "H(z|σ(z))", "H(z|σ(τ))", maven_entropy),
    Erratum(
        "thesis-3.2-index",
        THEORY,
        "Section 3.2 and algorithm 1",
        "Q(a^j, a^j) and Q(a^agent, a^j)",
        "Q(a^i, a^j)",
        joint_index,
    ),
    Erratum(
        "thesis-figure-3.1",
        THEORY,
        "Figure 3.1",
        "ROMMEO does slightly better than PR2",
        "with uniform priors they are one algorithm",
        pr2_and_rommeo,
    ),
    Erratum(
        "thesis-figure-3.2b",
        THEORY,
        "Figure 3.2b",
        "PR2 ends at almost 0 against its adversary",
        "at 1",
        almost_zero,
    ),
    Erratum(
        "thesis-corollary-1",
        THEORY,
        "Equation 3.31, Corollary 1",
        "V^i/β^i = V^-i/β^-i",
        "true where β^i = β^-i, false in general: the order of play counts",
        corollary_1,
    ),
    Erratum(
        "thesis-3.33",
        THEORY,
        "Equations 3.32 and 3.33",
        "r + E V, a contraction",
        "r + γ E V",
        balancing_operator,
    ),
    Erratum(
        "thesis-theorem-9",
        THEORY,
        "Theorem 9, Corollary 10, 3.41 and 3.42",
        "for β^i > 0 the updated policy's Q is at most the old one",
        "at least",
        theorem_9,
    ),
    Erratum(
        "thesis-3.40",
        THEORY,
        "Equation 3.40",
        "ρ̄(a^-i|s) from Q^i(s, a^i) and P(a^-i|s)",
        "π̄(a^i|s) from Q^i(s, a^i) and P(a^i|s)",
        improved_policy,
    ),
    Erratum(
        "thesis-3.5.2",
        THEORY,
        "Section 3.5.2",
        "networks π(a^i|s, a^-i) and ρ(a^-i|s)",
        "π(a^i|s) and ρ(a^-i|s, a^i), as in 3.46 and 3.49",
        conditioning,
    ),
    Erratum(
        "thesis-3.58",
        THEORY,
        "Equation 3.58",
        "an expectation over a^-i drawn from π_θ, which is a policy of a^i",
        "no expectation",
        sampled_action,
    ),
    Erratum("thesis-b.1", THEORY, "Equation B.1", "π ∝ P Q(a)", "π ∝ P exp Q(a)", experiment_policy),
    Erratum(
        "rommeo-differential",
        ROMMEO,
        "Max of two quadratics, against the authors' release",
        "((a + 5)/3)²",
        "the release has (a + 5)²/3",
        differential,
    ),
    Erratum("rommeo-climbing", ROMMEO, "Climbing game, bottom-right entry", "(5, 3)", "(5, 5)", climbing),
)
