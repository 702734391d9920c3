"""Lobo and Jordan's soft options, which average over options and terminations: the missing regularisation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import rel_entr
from matplotlib.ticker import MaxNLocator

from experiments.claims.options import games
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import annotated_matrix, panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Part, Rule, over_games
from jaxmarl_fac.soft import options

GAMES = 1000
EXACT = 1e-9

MASTER = "(4.10): the largest deviation of the difference in V^H(s) from the KL of π^H to 1/m"
MESSAGE = "(4.9): the largest deviation of the difference in U(s, z̄) from the KL of b and z to their prior"
ABOVE = "share of games where their values are above the exact ones in every state"
REGRET = "the least loss of their policies in the objective (4.4)"


class Comparison(NamedTuple):
    """Of one game; each `()`."""

    master_error: jax.Array  # of the difference from the KL, at the same V(s, z)
    message_error: jax.Array
    master_kl: jax.Array  # mean over states, at the exact fixed point
    message_kl: jax.Array
    least_excess: jax.Array  # of their values over the exact ones, over states and options
    mean_excess: jax.Array
    regret: jax.Array  # mean over states and options of what their policies lose in the objective
    largest_regret: jax.Array
    modulus: jax.Array  # Lipschitz constant of their operator at their fixed point, as a multiple of γ


def compare(game: options.OptionGame) -> Comparison:
    """Lobo and Jordan's averages and the exact soft maxima, on one game."""
    exact = options.solve(game, options.SINGLE)
    averaged = options.backup(game, options.LOBO_JORDAN, exact.q)  # at the same V(s, z)
    ends = game.termination_prior
    master_kl = jnp.sum(rel_entr(exact.policies["option"], game.option_priors[0]), axis=-1)  # (S,)
    master_error = averaged.values["option"] - exact.values["option"] - master_kl
    b = exact.policies["termination"]  # (S, m, 2)
    kl = jnp.sum(rel_entr(b, jnp.stack([1 - ends, ends])), axis=-1) + b[..., 1] * master_kl[:, None]
    mean = b[..., 0] * exact.values["action"] + b[..., 1] * averaged.values["option"][:, None]
    message_error = mean - exact.values["termination"] - kl

    theirs = options.solve(game, options.LOBO_JORDAN)
    excess = theirs.values["termination"] - exact.values["termination"]
    judged = options.evaluate(game, options.SINGLE, theirs.policies)
    loss = exact.values["termination"] - judged.values["termination"]
    jacobian = jax.jacfwd(lambda q: options.bellman(game, options.LOBO_JORDAN, q))(theirs.q)
    rows = jnp.sum(jnp.abs(jacobian.reshape(theirs.q.size, theirs.q.size)), axis=1)
    return Comparison(
        master_error=jnp.max(jnp.abs(master_error)),
        message_error=jnp.max(jnp.abs(message_error)),
        master_kl=jnp.mean(master_kl),
        message_kl=jnp.mean(kl),
        least_excess=jnp.min(excess),
        mean_excess=jnp.mean(excess),
        regret=jnp.mean(loss),
        largest_regret=jnp.max(loss),
        modulus=jnp.max(rows) / game.gamma,
    )


def lobo_jordan(workshop: Workshop) -> Outcome:
    """The worked example and random games, in float64."""
    count = workshop.choose(smoke=20, quick=GAMES, paper=GAMES)
    with jax.enable_x64(True):
        example = games.single_example()
        exact = games.single_numbers(options.solve(example, options.SINGLE))
        theirs = games.single_numbers(options.solve(example, options.LOBO_JORDAN))
        of_example = jax.tree.map(np.asarray, jax.jit(compare)(example))
        drawn = games.random_games(jax.random.key(3), count, agents=1)
        uniform = tuple(jnp.full_like(prior, 1 / prior.shape[-1]) for prior in drawn.option_priors)
        found = over_games(compare, drawn.replace(option_priors=uniform))  # type: ignore[attr-defined]
    measured = {
        MASTER: float(found.master_error.max()),
        MESSAGE: float(found.message_error.max()),
        ABOVE: float(np.mean(found.least_excess > 0)),
        REGRET: float(found.regret.min()),
    }
    ours = {
        "worked example": {"exact": exact, "Lobo and Jordan": theirs, **of_example._asdict()},
        "random games": {
            name: {"least": values.min(), "median": np.median(values), "largest": values.max()}
            for name, values in found._asdict().items()
        },
        "games": count,
        "games where the operator is no γ-contraction at its fixed point": int(
            (found.modulus > 1 + EXACT).sum()
        ),
    }
    why = (
        f"At the same V(s, z) the averages of (4.9) and (4.10) exceed the soft maxima by exactly the KL "
        f"terms that they leave out: the KL of π^H to 1/m is {of_example.master_kl:.3f} on average over the "
        f"states of the worked example, {np.median(found.master_kl):.3f} in the median of {count:,} games. "
        f"Carried on to the fixed point, values are too high by {of_example.mean_excess:.3f} on the example "
        f"(median {np.median(found.mean_excess):.3f}); policies are too sharp and lose "
        f"{of_example.regret:.4f} in the objective (median {np.median(found.regret):.4f}). The averaging "
        f"operator expands distances by more than γ around its fixed point on "
        f"{ours['games where the operator is no γ-contraction at its fixed point']:,} games, by up to "
        f"{found.modulus.max():.2f} γ."
    )
    return Outcome(_draw(exact, theirs, found), {}, ours, measured, why, count)


def _draw(exact: dict[str, np.ndarray], theirs: dict[str, np.ndarray], found: Comparison) -> Any:
    figure, axes = panels(
        2, 2, (5.2, 3.6), "Lobo and Jordan's averages against soft maxima (thesis, 4.9, 4.10)"
    )
    names = ("V(s, z)", "U(s, z̄)")
    rows = [f"{name[0]}(s, {z})" for name in names for z in range(2)]
    columns = [f"{who},\nstate {s}" for s in range(2) for who in ("soft", "averaged")]
    table = np.stack(
        [np.concatenate([who[name][s] for name in names]) for s in range(2) for who in (exact, theirs)],
        axis=1,
    )
    rows.append("$V^H$(s)")
    table = np.concatenate([table, [[who["V^H(s)"][s] for s in range(2) for who in (exact, theirs)]]])
    annotated_matrix(
        axes[0, 0], table, rows, columns, "worked example, at the fixed points", value_format="{:.3f}"
    )

    axes[0, 1].scatter(found.message_kl, found.mean_excess, s=5, alpha=0.5, color=PALETTE[0])
    axes[0, 1].set(
        title="values at the fixed points",
        xlabel="mean KL of termination and option to their prior",
        ylabel="mean excess of the averaged values",
    )
    axes[1, 0].scatter(found.mean_excess, np.maximum(found.regret, 1e-12), s=5, alpha=0.5, color=PALETTE[3])
    axes[1, 0].set_xscale("log")
    axes[1, 0].set_yscale("log")
    axes[1, 0].set(
        title="what the averaged model's policies lose",
        xlabel="mean excess of the averaged values",
        ylabel="mean loss in the objective (4.4)",
    )
    axes[1, 1].hist(found.modulus, bins=40, color=PALETTE[2])
    axes[1, 1].axvline(1, color="0.45", linestyle="--", linewidth=1)
    axes[1, 1].set(
        title="the averaging operator at its fixed point",
        xlabel="largest expansion of a small distance / γ",
        ylabel="games",
    )
    axes[1, 1].xaxis.set_major_locator(MaxNLocator(5))
    for place in ((0, 1), (1, 0)):
        axes[place].grid(alpha=0.25)
    return figure


CLAIMS = (
    Claim(
        "lobo_jordan",
        "Thesis, equations 4.9 and 4.10; Lobo and Jordan (2019)",
        "Averaging over options in place of the soft maximum misses the regularisation of the master policy.",
        Rule(
            (
                Part(MASTER, at_most=EXACT),
                Part(MESSAGE, at_most=EXACT),
                Part(ABOVE, at_least=0.99),
                Part(REGRET, above=0),
            ),
            given="On 1,000 random games, in float64: ",
        ),
        {"smoke": "10 s", "quick": "30 s", "paper": "30 s"},
        lobo_jordan,
    ),
)
