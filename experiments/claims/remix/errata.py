"""ReMIX: what is wrong in print, each with the computation that shows it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.matrix_games import QTRAN_PAYOFF
from envs.stag_hunt import stag_hunt
from experiments.claims.remix import statements as of
from experiments.claims.remix import weights as by
from experiments.claims.remix.stag_hunt import optimum
from jaxmarl_fac.exact.regret import largest_boltzmann_gap
from jaxmarl_fac.report.errata import Erratum, Shown, show

SOURCE = "ReMIX (Mei et al., 2023)"
GAMES = 100

derivatives = functools.cache(of.derivatives)


def normalisation() -> Shown:
    """Boltzmann policies of an agent with two histories and two actions, all of value 0."""
    shares = np.full((2, 2), 1 / 4)
    return show(
        abs(shares[0].sum() - 1) > of.EXACT,
        "Two histories, two actions, all utilities 0: as printed each action has probability {each:g}, and "
        "the "
        "probabilities of one history sum to {total:g}.",
        each=shares[0, 0],
        total=shares[0].sum(),
    )


def bellman() -> Shown:
    """B*Q as the table of notation prints it, and as it should be."""
    q = np.array([[0.0, 10.0], [10.0, 0.0]])  # (s', u')
    chances = np.array([0.5, 0.5])
    index = int((chances @ q).argmax())
    late, right = (chances @ q).max(), chances @ q.max(axis=1)
    return show(
        index != right and late != right,
        "r = 0, γ = 1, two next states with equal chances, Q = (0, 10) in one and (10, 0) in the other: "
        "the printed "
        "argmax is the number of an action, {index}; the maximum in its place is {late:g}; E max Q is "
        "{right:g}.",
        index=index,
        late=late,
        right=right,
    )


def lemma_1() -> Shown:
    """The slopes of a mixer with two hidden units."""
    worked = [jnp.asarray(x) for x in ([1.0, -2], [[1, 0.5], [2, 1]], [1.0, 0], [2.0, 1])]
    printed, right = of.printed_slopes(*worked), of.slopes(*worked)
    return show(
        jnp.max(jnp.abs(printed - right)) > of.EXACT,
        "q = (1, -2), W1 = [[1, .5], [2, 1]], b1 = (1, 0), W2 = (2, 1), ELU: with the mean of h' in front "
        "of the sum "
        "({printed[0]:.6f}, {printed[1]:.6f}), by automatic differentiation ({right[0]:.6f}, "
        "{right[1]:.6f}).",
        printed=printed,
        right=right,
    )


def lemma_2() -> Shown:
    """F below C, but far below 0."""
    f, p, q = np.array([-10.0, 1.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    left, right = abs(p @ f - q @ f), f.max() * np.abs(p - q).sum() / 2
    unbounded, bounded = of.total_variations(GAMES)
    return show(
        left > right and not bounded.any(),
        "f = (-10, 1), C = 1, P and Q disjoint: {left:g} > {right:g}. Of {games} random cases {failed} "
        "fail as printed, "
        "{bounded} with 0 <= f <= C.",
        left=left,
        right=right,
        games=GAMES,
        failed=int(unbounded.sum()),
        bounded=int(bounded.sum()),
    )


def lemma_3() -> Shown:
    """One state that can be left for good."""
    found = of.absorbed()
    return show(
        found["change of d by moving probability"] > found["ε d"],
        "One state, action 0 stays and action 1 leaves for good, each with probability 1/2, γ = .9: d(s) "
        "changes "
        "by {moved:.6f} for each unit of probability that is moved; ε d(s) is {bound:.6f}.",
        moved=found["change of d by moving probability"],
        bound=found["ε d"],
    )


def epsilon_0() -> Shown:
    """The same state: ∂d/∂π itself against d."""
    gamma, stays = 0.9, 0.5
    again = stays * gamma
    d, derivative = (1 - gamma) / (1 - again), (1 - gamma) * gamma / (1 - again) ** 2
    return show(
        derivative > d,
        "One state, action 0 stays with probability π, else the state is left for good; γ = .9, π = 1/2: "
        "d(s) = (1 - γ) / "
        "(1 - γπ) = {d:.6f} and ∂d(s)/∂π = {derivative:.6f}.",
        d=d,
        derivative=derivative,
    )


def lemma_4() -> Shown:
    """The largest gap of a Boltzmann policy over numbers of joint actions."""
    counts = (2, 4, 8, 9, 36, 6**8)
    supremum = dict(zip(map(str, counts), largest_boltzmann_gap(np.asarray(counts)), strict=True))
    return show(
        supremum["9"] > 1 >= supremum["8"],
        "For N joint actions the supremum is W((N - 1) / e), with Lambert's W: {two:.6f} (N = 2), "
        "{four:.6f} (4), "
        "{eight:.6f} (8), {nine:.6f} (9), {many:.6f} (36), {hunt:.4f} (6^8, the predator-prey game).",
        two=supremum["2"],
        four=supremum["4"],
        eight=supremum["8"],
        nine=supremum["9"],
        many=supremum["36"],
        hunt=supremum[str(6**8)],
    )


def equation_5() -> Shown:
    """The smallest counterexample to (5)."""
    found = of.counterexample(20, 1.278465, 2)
    above = of.one_state(*of.tables(GAMES, 2, 2))
    failed = int(of.exceeds(above.regret, above.without_one).sum())
    return show(
        found.regret > found.without_one,
        "One state, γ = 0, two actions, Q* = (20, 0), Q_k = (1.278465, 0): the regret is {regret:.6f}, the "
        "bound "
        "{bound:.6f}. It fails in {failed} of {games} random games with four joint actions.",
        regret=found.regret,
        bound=found.without_one,
        failed=failed,
        games=GAMES,
    )


def equation_18() -> Shown:
    """The smallest counterexample to (18)."""
    found = of.counterexample(20, 2.040113, 9)
    eight = of.counterexample(20, 1 + float(largest_boltzmann_gap(8)), 8)
    return show(
        found.regret > found.with_one and eight.regret <= eight.with_one,
        "One state, γ = 0, nine actions, Q* = (20, 0, ..., 0), Q_k = (2.040113, 0, ..., 0): the regret is "
        "{regret:.6f}, "
        "the bound {bound:.6f}.",
        regret=found.regret,
        bound=found.with_one,
    )


def jensen() -> Shown:
    """The step from (5) to (6) for a fair coin."""
    x = np.array([0.0, 2.0])
    mean, bound = x.mean(), -np.log(np.exp(-x).mean())
    return show(
        bound < mean,
        "X in {{0, 2}} with equal chances: E X = {mean:g} but -log E exp(-X) = {bound:.6f}, and it is "
        "never above E X. "
        "A policy with a small objective (6) may have a large bound (5).",
        mean=mean,
        bound=bound,
    )


def objective() -> Shown:
    """The objective (6) in one-state games for random weights."""
    found = derivatives(GAMES)
    return show(
        found.objective.max() < of.EXACT,
        "In a one-state game with y = Q* the first expectation is the ratio of the normalisers of exp Q_k "
        "and exp "
        "Q*, the second one its inverse. In {games} random 3x3 games with random weights the largest |(6)| "
        "is "
        "{largest:.0e}.",
        games=GAMES,
        largest=found.objective.max(),
    )


def equation_24() -> Shown:
    """The derivative of the additive fit of QTRAN's game by the weights."""
    printed, right = of.by_weights_in_qtrans_game()
    return show(
        np.abs(printed - right).max() > of.EXACT,
        "Additive values, QTRAN's game, uniform data: printed ∂Q(A, A)/∂p(A, A) = {printed:g} and 0 by any "
        "other p; "
        "right are {own:.3f} and {other:.3f} (by p(B, B), and by each of the four without an A).",
        printed=printed[0, 0],
        own=right[0, 0],
        other=right[1, 1],
    )


def equation_25() -> Shown:
    """The chain rule of (25) on random games."""
    error = derivatives(GAMES).policy
    return show(
        error.min() > of.EXACT,
        "A joint policy depends on all of Q_k, not on its own entry alone. Given the true ∂Q_k/∂p_k, the "
        "printed "
        "∂d/∂p_k is wrong in {wrong} of {games} random one-state games, in the median by {median:.0%}.",
        wrong=int((error > of.EXACT).sum()),
        games=GAMES,
        median=np.median(error),
    )


def denominator() -> Shown:
    """Weights have no scale."""
    found = derivatives(GAMES)
    return show(
        found.scale.max() < of.EXACT,
        "Twice the weights give the same projection: the sum over v of p(v) ∂Q_k(u)/∂p(v) is 0 (largest "
        "{largest:.0e} in "
        "{games} random games). By (26) then Σ p (λ - ν) = 0, so that λ* = 0, and where p > 0 also ν* = 0.",
        largest=found.scale.max(),
        games=GAMES,
    )


def sign() -> Shown:
    """The last factor of (17) where agents are nearly deterministic."""
    gap, ahead, policies, slopes = 1.0, 0.5, np.array([0.9, 0.9]), np.ones(2)
    bracket = ((1 - policies) / slopes).sum() - 1
    value = gap * np.exp(ahead) * bracket
    both = int(derivatives(GAMES).both_signs.sum())
    return show(
        value < 0,
        "y - Q_k = 1, Q* - Q_k = .5, two agents with π = .9 and f' = 1: the bracket is {bracket:.1f} and "
        "the weight "
        "{value:.6f}. In {both} of {games} random games some weights are above and some below 0.",
        bracket=bracket,
        value=value,
        both=both,
        games=GAMES,
    )


def equation_30() -> Shown:
    """The sign of ε_k in (28) and in (30)."""
    _, error = of.algebra(GAMES)
    return show(
        error.min() > of.EXACT,
        "(28) has (Q_k - B*Q) in both terms and divides by a negative number; (30) turns the sign of the "
        "first "
        "term only. On {games} random numbers p by (30) differs from p by (28) every time, in the median "
        "by {median:.0%}.",
        games=GAMES,
        median=np.median(error),
    )


def theorem_1() -> Shown:
    """Theorem 1's weights on QTRAN's game against weights with less regret."""
    payoff = jnp.asarray(QTRAN_PAYOFF, float)
    found = jax.jit(lambda q: by.settled(by.printed, q)[0])(payoff)
    uniform = jnp.full((3, 3), 1 / 9)
    line = jnp.full((3, 3), by.LEAST).at[0].set(1.0).at[:, 0].set(1.0)
    regrets: dict[str, Any] = {
        name: float(by.one_state_regret(payoff, of.fitted(payoff, weights / weights.sum())))
        for name, weights in {"printed": found, "uniform": uniform, "line": line}.items()
    }
    return show(
        regrets["printed"] > regrets["line"] + of.EXACT,
        "Additive values, QTRAN's game: weights that belong to their own Q_k by theorem 1 leave a regret of "
        "{printed:.4f}, uniform ones {uniform:.4f}, and weight on the five joint actions with an A "
        "{line:.4f}.",
        **regrets,
    )


def capture() -> Shown:
    """The best return with each of the two rewards."""
    ten, one = (optimum(stag_hunt(capture_reward=reward)) for reward in (10.0, 1.0))
    return show(
        ten != one,
        "Eight agents make at most four captures of two: the best return is {ten:g} with a reward of 10, "
        "as in the "
        "game's release, and {one:g} with 1.",
        ten=ten,
        one=one,
    )


def mask() -> Shown:
    """The action mask of the game beside an occupied cell."""
    game = stag_hunt()
    with jax.enable_x64(False):
        state, _ = jax.jit(game.reset)(jax.random.key(0))
        agents = np.asarray(state.agents).copy()
        agents[0], agents[1] = 0, 1  # side by side in the first row
        masked = np.asarray(game.observe(state.replace(agents=jnp.asarray(agents))).action_mask)[0]
    right, left = bool(masked[0]), bool(masked[2])
    return show(
        right and not left,
        "Agents at (0, 0) and (1, 0): in the game as released the first may move right, into the other "
        "(available: "
        "{right}), where nothing happens; only the wall to its left is masked (available: {left}).",
        right=right,
        left=left,
    )


def penalties() -> Shown:
    """The penalties of D.1."""
    given = (0.0, -0.5, -1.5, -2.0)
    return show(len(given) != 2, "p = (0, -.5, -1.5, -2) are {count}, as in figure 1.", count=len(given))


def evaluations() -> Shown:
    """Points of a curve with each of the two intervals."""
    steps = 1_000_000
    return show(
        steps // 1_000 != steps // 10_000,
        "A curve of a million steps has {coarse} points by the one and {fine} by the other.",
        coarse=steps // 10_000,
        fine=steps // 1_000,
    )


def maps() -> Shown:
    """The maps that are named."""
    named = ("1c3s5z", "3s_vs_5z", "6h_vs_8z", "MMM2", "corridor")
    return show(
        len(named) != 6,
        "{names} are {count}; of the two hard ones only 3s_vs_5z has a name.",
        names=", ".join(named),
        count=len(named),
    )


def baselines() -> Shown:
    """QPLEX among the baselines."""
    first = {"QMIX", "WQMIX", "QPLEX", "VDAC", "FOP", "DOP"}
    second = {"QMIX", "WQMIX", "VDAC", "FOP", "DOP"}
    return show(
        first != second,
        "The two lists differ in {names}, which is in figures 1 and 2.",
        names=", ".join(sorted(first ^ second)),
    )


ERRATA = (
    Erratum(
        "remix-policy-sum",
        SOURCE,
        "Section 4.1, Boltzmann policies",
        "π^a = exp Q^a(τ, u) divided by a sum over histories and actions",
        "the sum is over actions only",
        normalisation,
    ),
    Erratum(
        "remix-bellman",
        SOURCE,
        "Appendix A, Bellman operator",
        "r + γ argmax_u' E_s' Q(s', u')",
        "r + γ E_s' max_u' Q(s', u')",
        bellman,
    ),
    Erratum(
        "remix-lemma-1",
        SOURCE,
        "Lemma 1, (8), (9)",
        "h' in front of the sum over the hidden units",
        "h' of each hidden unit, inside the sum",
        lemma_1,
    ),
    Erratum("remix-lemma-2", SOURCE, "Lemma 2, (13)", "f <= C", "0 <= f <= C", lemma_2),
    Erratum(
        "remix-lemma-3",
        SOURCE,
        "Lemma 3, (14)",
        "|∂d(s)/∂π(s)| <= ε d_1(s)",
        "∂d(s)/∂π(u|s) = d_1(s) ρ(s, u) / (1 - R)², where ρ is the discounted probability to come back "
        "after u, "
        "and R its mean under π",
        lemma_3,
    ),
    Erratum("remix-epsilon-0", SOURCE, "Below (28)", "ε_0 is smaller than d", "it may be larger", epsilon_0),
    Erratum(
        "remix-lemma-4",
        SOURCE,
        "Lemma 4, (15)",
        "the best value exceeds the mean of a Boltzmann policy by 1 at most, also for more than two joint "
        "actions",
        "true up to eight joint actions, false from nine on",
        lemma_4,
    ),
    Erratum(
        "remix-equation-5",
        SOURCE,
        "Equation (5)",
        "the right-hand side of (18) without + 1 and without 1 / (1 - γ)",
        "not a bound of the regret, for two actions already",
        equation_5,
    ),
    Erratum(
        "remix-equation-18",
        SOURCE,
        "Equation (18)",
        "a bound of the regret, by lemma 4",
        "true up to eight joint actions, false from nine on",
        equation_18,
    ),
    Erratum(
        "remix-jensen",
        SOURCE,
        "Equations (6), (20), (21)",
        "by Jensen's inequality for exp(-x), (6) is a relaxation from above of (5)",
        "-log E exp(-X) <= E X: (6) lies below (5), and to minimise it bounds nothing",
        jensen,
    ),
    Erratum(
        "remix-objective",
        SOURCE,
        "Equations (6), (21), in one-state games",
        "weights that minimise (6)",
        "(6) is 0 for all weights",
        objective,
    ),
    Erratum(
        "remix-equation-24",
        SOURCE,
        "Equation (24)",
        "∂Q_k/∂p_k = -diag(p)^-1 diag(Q_k - y)",
        "true of no class with fewer values than joint actions: Q_k moves everywhere, and not by as much",
        equation_24,
    ),
    Erratum(
        "remix-equation-25",
        SOURCE,
        "Equation (25)",
        "∂π_k/∂Q_k and ∂d/∂p_k are diagonal matrices",
        "they are not",
        equation_25,
    ),
    Erratum(
        "remix-multiplier",
        SOURCE,
        "Equation (28)",
        "division by ν* - λ*",
        "λ* = 0, and ν* = 0 where p > 0: a division by 0",
        denominator,
    ),
    Erratum(
        "remix-sign",
        SOURCE,
        "Below (28)",
        "(28) is always larger than or equal to 0",
        "its last factor, Σ (1 - π^j)/f'_j - 1, may be negative",
        sign,
    ),
    Erratum(
        "remix-equation-30",
        SOURCE,
        "Equation (30)",
        "ε_k = ε_0 π_k (Q_k - B*Q) ...",
        "ε_k = ε_0 π_k (B*Q - Q_k) ..., to agree with (28)",
        equation_30,
    ),
    Erratum(
        "remix-theorem-1",
        SOURCE,
        "Theorem 1, (4)",
        "the weights are optimal for a relaxation of the regret problem",
        "the relaxation is 0 for all weights here, and others leave less regret",
        theorem_1,
    ),
    Erratum(
        "remix-capture",
        SOURCE,
        "Section 5.1 and appendix D.1, predator-prey",
        "a capture is rewarded with 1 in one place, with 10 in the other",
        "10",
        capture,
    ),
    Erratum(
        "remix-mask",
        SOURCE,
        "Appendix D.1, predator-prey, against the game's release",
        "moves into an occupied cell are unavailable",
        "they are available and do nothing",
        mask,
    ),
    Erratum(
        "remix-two-sets", SOURCE, "Appendix D.1, predator-prey", "two sets of experiments", "four", penalties
    ),
    Erratum(
        "remix-evaluations",
        SOURCE,
        "Appendices D.2 and D.3",
        "evaluations every 10,000 steps in one place, every 1,000 in the other",
        "the paper does not say which",
        evaluations,
    ),
    Erratum(
        "remix-six-maps",
        SOURCE,
        "Section 5.2",
        "one easy, two hard and three super-hard maps",
        "the text names five",
        maps,
    ),
    Erratum(
        "remix-qplex",
        SOURCE,
        "Section 5.1 and appendix D",
        "QPLEX is a baseline in one place; in the other FOP and DOP are used in its place",
        "it is one",
        baselines,
    ),
)
