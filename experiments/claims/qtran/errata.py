"""QTRAN: what is wrong in print, each with the computation that shows it."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.gaussian_squeeze import squeeze_reward
from envs.matrix_games import QTRAN_PAYOFF, two_gaussians_payoff
from envs.predator_prey import PredatorPreyState, predator_prey
from experiments.claims.qtran.theory import COUNTEREXAMPLE, feasible
from jaxmarl_fac.exact.factorization import tight_utilities
from jaxmarl_fac.exact.projections import monotone_fit
from jaxmarl_fac.mixers import monotone_mix
from jaxmarl_fac.report.errata import Erratum, Shown, show

SOURCE = "QTRAN (Son et al., 2019)"
RANDOM_PAYOFFS = 100


def theorem_2() -> Shown:
    """The smallest game in which condition (7) cannot be met, and the share of random ones."""
    two, three = ((3, 3), (2, 2, 2))
    return show(
        tight_utilities(COUNTEREXAMPLE) is None,
        "Three agents, two actions, R = 1 at (0, 0, 0) and 0 elsewhere: with a_i = Q_i(1) - Q_i(0) <= 0, (7) "
        "on the lines of two agents each asks for a_i + a_j <= -1, so a_1 + a_2 + a_3 <= -3/2, while the "
        "slack where all play 1 must not be negative: a_1 + a_2 + a_3 >= -1. An integer program over all "
        "zero patterns finds no solution either. Of {games} uniform random payoffs {pairs} of 3x3 and "
        "{triples} "
        "of 2x2x2 have one.",
        games=RANDOM_PAYOFFS,
        pairs=int(feasible(two, RANDOM_PAYOFFS).sum()),
        triples=int(feasible(three, RANDOM_PAYOFFS).sum()),
    )


def monotone() -> Shown:
    """The best monotone fit of the 3x3 game, and the best of those that rank A last."""
    payoff = np.asarray(QTRAN_PAYOFF, float)
    best = monotone_fit(payoff)
    last = np.array([[-8.0, -8, -8], [-8, 0, 0], [-8, 0, 0]])
    learned = float(((last - payoff) ** 2).sum())
    return show(
        best.greedy == (0, 0) and best.sse < learned,
        "Isotonic regression over all orders of the actions: the best monotone fit is {corner:g} at (A, A) "
        "and "
        "{rest:g} elsewhere, with a squared error of {best:g} and the optimal greedy action. The table "
        "that QMIX "
        "learns (-8 and 0) costs {learned:g}: it is a local optimum of the training.",
        best=best.sse,
        learned=learned,
        corner=best.q_tot[0, 0],
        rest=best.q_tot[1, 1],
        greedy=best.greedy,
    )


def release_qmix() -> Shown:
    """The release's QMIX baseline, which adds the bias after ELU, on one example."""
    q, b1 = jnp.array([1.0, -2.0]), jnp.array([1.0, 0.0])
    w1, w2, value = jnp.array([[1.0, 0.5], [2.0, 1.0]]), jnp.array([2.0, 1.0]), jnp.array(0.5)
    right = monotone_mix(q, w1, b1, w2, value)
    released = (jax.nn.elu(q @ w1) + b1) @ w2 + value
    return show(
        abs(right - released) > 1e-6,
        "q = (1, -2), W1 = [[1, .5], [2, 1]], b1 = (1, 0), W2 = (2, 1), V = .5: QMIX gives {right:.6f}, "
        "the release "
        "{released:.6f}.",
        right=right,
        released=released,
    )


def pitfall() -> Shown:
    """The two peaks of MGS."""
    x = np.linspace(0, 12, 1_200_001)
    reward = squeeze_reward(x, np.array([8.0, 5.0]), np.array([0.5, 1.0]))
    low, high = reward[x < 6.5].max(), reward[x >= 6.5].max()
    return show(
        abs(low / high - 0.5) > 0.1,
        "The lower peak of G is {low:.5f} at x = {at_low:.4f}, the higher one {high:.5f} at x = "
        "{at_high:.4f}: a ratio "
        "of {ratio:.3f}.",
        low=low,
        high=high,
        ratio=low / high,
        at_low=x[x < 6.5][reward[x < 6.5].argmax()],
        at_high=x[x >= 6.5][reward[x >= 6.5].argmax()],
    )


def squeeze_widths() -> Shown:
    """The peak of GS with the paper's width and with the release's."""
    x = np.linspace(0, 12, 1_200_001)
    peaks = {
        sigma: (float(x[reward.argmax()]), float(reward.max()))
        for sigma in (1.0, 0.5)
        for reward in [squeeze_reward(x, np.array([8.0]), np.array([sigma]))]
    }
    paper, release = peaks[1.0], peaks[0.5]
    return show(
        paper != release,
        "With σ = 1 the best reward is {paper:.5f} at x = {at_paper:.5f}, with σ = .5 it is {release:.5f} "
        "at x = "
        "{at_release:.5f}; one unit beside the peak σ = 1 still pays {beside:.3f}, σ = .5 only "
        "{beside_release:.3f}.",
        paper=paper[1],
        at_paper=paper[0],
        release=release[1],
        at_release=release[0],
        beside=squeeze_reward(np.array(7.0), np.array([8.0]), np.array([1.0])),
        beside_release=squeeze_reward(np.array(7.0), np.array([8.0]), np.array([0.5])),
    )


def action_count() -> Shown:
    """How many actions the 21x21 game has."""
    payoff = two_gaussians_payoff()
    best = np.unravel_index(payoff.argmax(), payoff.shape)
    return show(
        payoff.shape != (20, 20),
        "u in 0, ..., 20 are {actions} actions: {cells} joint actions, of which ({row}, {column}) pays the "
        "most, "
        "{best:g}.",
        actions=payoff.shape[0],
        cells=payoff.size,
        row=int(best[0]),
        column=int(best[1]),
        best=payoff.max(),
    )


def termination() -> Shown:
    """When two predators that move at random first catch the prey together."""
    game, episodes = predator_prey(2, penalty=0.5), 200

    def episode(key: jax.Array) -> jax.Array:
        start, draw = jax.random.split(key)
        state, _ = game.reset(start)
        actions = jax.random.randint(draw, (game.time_limit, game.num_agents), 0, game.num_actions)

        def step(state: PredatorPreyState, chosen: jax.Array) -> tuple[PredatorPreyState, jax.Array]:
            state, timestep = game.step(state, chosen)
            return state, timestep.reward

        return jax.lax.scan(step, state, actions)[1]  # (T,)

    with jax.enable_x64(False):
        keys = jax.random.split(jax.random.key(0), episodes)
        rewards = np.asarray(jax.jit(jax.vmap(episode))(keys))
    caught = rewards > 0
    first = np.where(caught.any(1), caught.argmax(1) + 1, game.time_limit)
    return show(
        first.mean() < game.time_limit and caught.sum(1).max() > 1,
        "Two predators that move at random on 5x5 cells catch the prey first after {first:.0f} steps (mean "
        "of "
        "{episodes} episodes). If that ended the episode it would not last {steps} steps, and its return "
        "could "
        "not exceed 1; with the prey put back the random pair catches up to {most} times.",
        first=first.mean(),
        episodes=episodes,
        steps=game.time_limit,
        most=int(caught.sum(1).max()),
    )


ERRATA = (
    Erratum(
        "qtran-theorem-2",
        SOURCE,
        "Theorem 2 and supplement B.4",
        "condition (7) is sufficient for a factorization and, after an affine transformation, necessary, for "
        "any number of agents",
        "sufficient always, necessary for two agents only; QTRAN-alt's L_nopt-min has in general no zero "
        "for three "
        "or more",
        theorem_2,
    ),
    Erratum(
        "qtran-qmix-3x3",
        SOURCE,
        "Section 3.5, text on table 1",
        "QMIX fails on the 3x3 game because of the structural constraint of monotonicity",
        "the class of monotone values holds a table whose greedy action is optimal and whose error is "
        "smaller; "
        "training does not find it",
        monotone,
    ),
    Erratum(
        "qtran-release-qmix",
        SOURCE,
        "The authors' release, QMIX baseline",
        "ELU(q W1) + b1",
        "ELU(q W1 + b1), as QMIX is defined",
        release_qmix,
    ),
    Erratum(
        "qtran-mgs-half",
        SOURCE,
        "Section 4.1, multi-domain Gaussian squeeze",
        "the sub-optimal policy is only half as rewarding as the optimal one",
        "with the constants of supplement C.1 it is .63 times as rewarding",
        pitfall,
    ),
    Erratum(
        "qtran-gs-sigma",
        SOURCE,
        "Supplement C.1, Gaussian squeeze, against the authors' release",
        "σ = 1 and actions 0, ..., 9",
        "the release has σ = .5 and actions 0, ..., 10: another task",
        squeeze_widths,
    ),
    Erratum(
        "qtran-20-actions",
        SOURCE,
        "Supplement, text on figures 8 to 11",
        "two agents with 20 actions each",
        "21, as in section 3.5 and supplement C.1",
        action_count,
    ),
    Erratum(
        "qtran-predator-prey-end",
        SOURCE,
        "Supplement C.1, modified predator-prey",
        "the task terminates when a prey is caught, and the game proceeds over fixed 100 steps",
        "a caught prey is put back at random, and only the 100 steps end the game",
        termination,
    ),
)
