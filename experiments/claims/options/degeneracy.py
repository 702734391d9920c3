"""Soft options whose priors over actions do not depend on the option: flat soft value iteration."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.claims.options import games
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Part, Rule, over_games
from jaxmarl_fac.soft import options, stages
from jaxmarl_fac.soft.planning import TwoPlayerModel, soft_value_iteration

GAMES = 1000
#: Of values in float64, which are below 100.
EXACT = 1e-8
#: How much priors depend on options, from not at all.
DEPENDENCE = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

MODELS = {"one agent": options.SINGLE, "two agents": options.DELAYED, "without messages": options.NO_MESSAGE}


class Distances(NamedTuple):
    """Of a game with options from the same game without, each `()`."""

    values: jax.Array  # the largest, over all tables
    options: jax.Array  # of master and termination policies from their priors
    actions: jax.Array  # of the action policies


def flat_solution(game: options.OptionGame) -> tuple[jax.Array, jax.Array]:
    """Soft value iteration without options, P(a|s) = Σ_z P(z) P(a|s, z): V `(S,)` and π(a|s) `(S, A_1)`."""
    reward = game.beta * game.reward
    transition = game.transition
    own, *others = (
        jnp.einsum("z,sza->sa", over, prior)
        for over, prior in zip(game.option_priors, game.action_priors, strict=True)
    )
    if game.num_agents == 1:  # against one other with a single action
        reward, transition = reward[..., None], transition[:, :, None]
        others = [jnp.ones((len(own), 1), own.dtype)]
    flat = TwoPlayerModel(reward, transition, game.gamma)
    _, backup = soft_value_iteration(flat, stages.pr2, own, *others)
    return backup.value, backup.policy


def distances(game: options.OptionGame, model: options.OptionModel) -> Distances:
    """How far the fixed point with options is from that without."""
    solution = options.solve(game, model)
    value, policy = flat_solution(game)

    def from_state_value(name: str) -> jax.Array:
        table = solution.values[name]
        return jnp.max(jnp.abs(table - value.reshape(-1, *(1,) * (table.ndim - 1))))

    last = ("action", "option", "termination")  # the choices after which nothing but the state is left
    ends = game.termination_prior
    priors = {"option": game.option_priors[0], "termination": jnp.stack([1 - ends, ends])}
    action = solution.policies["action"]
    return Distances(
        values=jnp.max(jnp.stack([from_state_value(name) for name in last])),
        options=jnp.max(
            jnp.stack([jnp.max(jnp.abs(solution.policies[name] - prior)) for name, prior in priors.items()])
        ),
        actions=jnp.max(jnp.abs(action - jnp.expand_dims(policy, tuple(range(1, action.ndim - 1))))),
    )


def degeneracy(workshop: Workshop) -> Outcome:
    """Random games, with priors that depend on options not at all, a little, and fully."""
    count = workshop.choose(smoke=20, quick=GAMES, paper=GAMES)
    sizes = [count if dependence == 0 else max(10, count // 10) for dependence in DEPENDENCE]
    of_game = np.repeat(DEPENDENCE, sizes)
    found: dict[str, dict[float, Distances]] = {}
    with jax.enable_x64(True):
        for name, model in MODELS.items():
            drawn = games.random_games(jax.random.key(2), len(of_game), model.agents, of_game)
            each = over_games(functools.partial(distances, model=model), drawn)
            found[name] = {
                dependence: Distances(*(field[of_game == dependence] for field in each))
                for dependence in DEPENDENCE
            }
    measured = {
        _part(kind, name): float(getattr(of_model[0.0], field).max())
        for name, of_model in found.items()
        for kind, field in KINDS.items()
    }
    measured[DEPENDS] = min(float(np.median(of_model[1.0].values)) for of_model in found.values())
    ours = {
        name: {
            f"dependence {dependence:g}": {
                kind: {"median": np.median(getattr(each, field)), "largest": getattr(each, field).max()}
                for kind, field in KINDS.items()
            }
            for dependence, each in of_model.items()
        }
        for name, of_model in found.items()
    }
    why = (
        f"With priors that do not depend on the option, V, V^H and U are the values of flat soft value "
        f"iteration to {max(measured[_part('values', name)] for name in MODELS):.0e} on {count:,} games, the "
        f"master and termination policies are their priors, and the action policy is the flat one. With "
        f"different priors the values differ by {measured[DEPENDS]:.2f} in the median: whether options work "
        f"shows only where their priors differ."
    )
    return Outcome(_draw(found, count), {"distance": 0}, ours, measured, why, count)


KINDS = {"values": "values", "master and termination policies": "options", "action policies": "actions"}
DEPENDS = "the least median distance of the values where priors are drawn for each option"


def _part(kind: str, name: str) -> str:
    return f"{name}: the largest distance of the {kind} from those without options"


def _draw(found: dict[str, dict[float, Distances]], count: int) -> Any:
    figure, axes = panels(1, 2, (5.6, 3.9), "Options whose priors do not depend on them change nothing")
    edges = np.linspace(-17, -6, 45)
    for shade, (name, of_model) in zip(PALETTE, found.items(), strict=False):
        errors = np.log10(np.maximum(of_model[0.0].values, 1e-17))
        axes[0, 0].hist(errors, bins=list(edges), histtype="step", color=shade, linewidth=1.6, label=name)
        places = DEPENDENCE[1:]
        for kind, dashes in (("values", "-"), ("options", "--")):
            middle = [float(np.median(getattr(of_model[place], kind))) for place in places]
            label = f"{name}: {'values' if kind == 'values' else 'master, termination'}"
            axes[0, 1].plot(places, middle, dashes, marker="o", markersize=3, color=shade, label=label)
    axes[0, 0].axvline(np.log10(EXACT), color="0.45", linestyle="--", linewidth=1)
    axes[0, 0].set(
        title=f"one prior for all options: {count:,} games each",
        xlabel="$\\log_{10}$ of the largest distance of values",
        ylabel="games",
    )
    axes[0, 0].legend(fontsize="small", frameon=False, loc="center right")
    axes[0, 1].set_xscale("log")
    axes[0, 1].set_yscale("log")
    axes[0, 1].set(
        title="median distance as priors begin to differ",
        xlabel="share of each prior that is the option's own",
        ylabel="distance from the game without options",
    )
    axes[0, 1].legend(fontsize="x-small", frameon=False)
    axes[0, 1].grid(alpha=0.25)
    return figure


CLAIMS = (
    Claim(
        "degeneracy",
        "Thesis, equations 4.5 to 4.8 and 4.16 to 4.21, with one prior for all options",
        "If the priors over actions do not depend on the option, options change nothing: values are those of "
        "flat soft value iteration, and options are drawn and ended by their priors.",
        Rule(
            (
                *(Part(_part(kind, name), at_most=EXACT) for name in MODELS for kind in KINDS),
                Part(DEPENDS, at_least=0.01),
            ),
            given="On 1,000 random games for each model, in float64: ",
        ),
        {"smoke": "20 s", "quick": "1 min", "paper": "1 min"},
        degeneracy,
    ),
)
