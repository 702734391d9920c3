"""Four rooms: values, options and terminations on the map, exact beside learned."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

import baselines
import envs
from envs.rooms import Rooms
from experiments.claims.options.learned import Exact, exact_solution, return_of, tables_of
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import Part, Rule
from jaxmarl_fac.soft.options import SoftOptions
from jaxmarl_fac.statistics import Interval, bootstrap_interval

GAME = "four-rooms"
#: Options whose probabilities are nearer than this count as equally likely.
MARGIN = 0.05


def rooms_experiment(scale: str, seeds: tuple[int, ...]) -> Experiment:
    """The learner in four rooms."""
    return Experiment(
        algorithm=baselines.make("soft-options", "options"),
        environment=envs.make(GAME),
        seeds=seeds,
        env_steps=400 if scale == "smoke" else 40_000,
        num_envs=8,
        evaluations=1,
        evaluation_episodes=4,
    )


class Comparison(NamedTuple):
    """Of one seed's tables."""

    distance: float  # the largest of V^H(s)
    mean_distance: float  # over cells
    same_option: float  # share of the cells with a likeliest option that learn the same
    return_share: float  # of the exact policies' expected return


def compare(learned: SoftOptions, env: Rooms, exact: Exact, exact_return: float) -> Comparison:
    """One seed beside the exact solution, over the cells in which an episode goes on."""
    (solution,) = exact.solutions
    alive = ~np.asarray(exact.game.terminal)
    apart = np.abs(learned.values["option"] - np.asarray(solution.values["option"]))[alive]
    ours, theirs = learned.policies["option"][alive], np.asarray(solution.policies["option"])[alive]
    ordered = np.sort(theirs, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > MARGIN
    same = ours.argmax(1)[clear] == theirs.argmax(1)[clear]
    return Comparison(
        float(apart.max()),
        float(apart.mean()),
        float(same.mean()),
        return_of((learned,), env, exact) / exact_return,
    )


def four_rooms(workshop: Workshop) -> Outcome:
    """The exact solution, and ten seeds of the learner."""
    seeds = workshop.seeds(smoke=1, quick=10, paper=20)
    experiment = rooms_experiment(workshop.scale, seeds)
    env: Any = experiment.environment
    exact = exact_solution(experiment.algorithm, env)
    exact_return = return_of(exact.solutions, env, exact)
    result = workshop.train("four-rooms", experiment)
    lanes = [tables[0] for tables in tables_of(experiment, result)]
    each = [compare(tables, env, exact, exact_return) for tables in lanes]
    found = Comparison(*(bootstrap_interval(np.asarray(column)) for column in zip(*each, strict=True)))  # type: ignore[arg-type]
    median = lanes[int(np.argsort([one.distance for one in each])[len(each) // 2])]
    master = np.asarray(exact.solutions[0].policies["option"])
    measured = {
        DISTANCE: found.distance,
        SAME: found.same_option,
        RETURN: found.return_share,
    }
    ours = {
        **found._asdict(),
        "exact expected return": exact_return,
        "exact V^H of the best and of the worst cell": [
            float(np.asarray(exact.solutions[0].values["option"])[~np.asarray(exact.game.terminal)].max()),
            float(np.asarray(exact.solutions[0].values["option"])[~np.asarray(exact.game.terminal)].min()),
        ],
        "largest probability of an option": float(master.max()),
    }
    distance: Any = found.distance
    why = (
        f"Learned V^H(s) is within {distance.value:.2f} [{distance.low:.2f}, {distance.high:.2f}] of the "
        f"exact one in every cell (IQM over {len(seeds)} seeds; on average "
        f"{_middle(found.mean_distance):.3f}); the likeliest option is the exact one in "
        f"{_middle(found.same_option):.0%} of the cells that have one, and the policies return "
        f"{_middle(found.return_share):.1%} of the exact ones' {exact_return:.2f}."
    )
    figure = _draw(env, exact.solutions[0], median, ~np.asarray(exact.game.terminal))
    return Outcome(figure, {"values": "none are given"}, ours, measured, why)


def _middle(interval: Any) -> float:
    return interval.value if isinstance(interval, Interval) else interval


def _draw(env: Rooms, exact: SoftOptions, learned: SoftOptions, alive: np.ndarray) -> Any:
    figure, axes = panels(
        2,
        4,
        (3.5, 3.4),
        "Four rooms: exact above, learned below (the median seed)",
    )
    for row, (name, tables) in enumerate((("exact", exact), ("learned", learned))):
        values = np.asarray(tables.values["option"])
        shown = np.asarray(exact.values["option"])[alive]
        limits = (float(shown.min()), float(shown.max()))
        draw_map(axes[row, 0], env, values, alive, limits, f"{name}: $V^H$(s)")
        draw_options(
            axes[row, 1], env, np.asarray(tables.policies["option"]), alive, f"{name}: likeliest option"
        )
        draw_map(
            axes[row, 2],
            env,
            np.asarray(tables.policies["termination"])[:, 0, 1],
            alive,
            (0.0, float(np.asarray(exact.policies["termination"])[alive, 0, 1].max())),
            f"{name}: probability of ending option 0",
        )
        draw_moves(axes[row, 3], env, tables, alive, f"{name}: likeliest action of it")
    return figure


def _grid(env: Rooms, values: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Values `(S,)` on the map, NaN for walls."""
    table = np.full((len(env.rows), len(env.rows[0])), np.nan)
    for (x, y), value, goes_on in zip(env.cells[0], values, alive, strict=True):
        if goes_on:
            table[y, x] = value
    return table


def draw_map(
    axes: Axes, env: Rooms, values: np.ndarray, alive: np.ndarray, limits: tuple[float, float], title: str
) -> None:
    """Values `(S,)` as colours on the map."""
    image = axes.imshow(_grid(env, values, alive), cmap="viridis", vmin=limits[0], vmax=limits[1])
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    _decorate(axes, env, title)


def draw_options(axes: Axes, env: Rooms, master: np.ndarray, alive: np.ndarray, title: str) -> None:
    """The likeliest option of the master policy `(S, m)`, paler where it is less likely."""
    options = master.shape[1]
    colours = ListedColormap(PALETTE[:options])
    likeliest = _grid(env, master.argmax(1), alive)
    strength = _grid(env, (master.max(1) - 1 / options) / (1 - 1 / options), alive)
    axes.imshow(
        likeliest, cmap=colours, vmin=-0.5, vmax=options - 0.5, alpha=np.nan_to_num(0.25 + 0.75 * strength)
    )
    for option, (x, y) in enumerate(env.targets[0]):
        axes.text(x, y, str(option), ha="center", va="center", fontsize="small", weight="bold")
    handles = [
        Line2D([], [], marker="s", linestyle="", color=PALETTE[option], label=str(option))
        for option in range(options)
    ]
    axes.legend(
        handles=handles,
        ncols=options,
        fontsize="x-small",
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        columnspacing=0.8,
        handletextpad=0.1,
    )
    _decorate(axes, env, title)


def draw_moves(axes: Axes, env: Rooms, tables: SoftOptions, alive: np.ndarray, title: str) -> None:
    """An arrow for the likeliest action of the likeliest option in every cell."""
    axes.imshow(_grid(env, np.zeros(len(alive)), alive), cmap=ListedColormap(["#f4f4f4"]))
    master, action = (np.asarray(tables.policies[name]) for name in ("option", "action"))
    steps = ((0, -1), (-1, 0), (1, 0), (0, 1))
    options = master.argmax(1)
    for state in np.flatnonzero(alive):
        x, y = env.cells[0][state]
        if (x, y) in env.goals:
            continue
        option = int(options[state])
        dx, dy = steps[int(action[state, option].argmax())]
        axes.annotate(
            "",
            (x + 0.35 * dx, y + 0.35 * dy),
            (x - 0.35 * dx, y - 0.35 * dy),
            arrowprops={"arrowstyle": "-|>", "color": PALETTE[option], "shrinkA": 0, "shrinkB": 0, "lw": 1},
        )
    _decorate(axes, env, title)


def _decorate(axes: Axes, env: Rooms, title: str) -> None:
    """Walls, the goal, and no ticks."""
    walls = np.asarray([[mark == "#" for mark in row] for row in env.rows], float)
    axes.imshow(np.where(walls > 0, 1.0, np.nan), cmap=ListedColormap(["#4a4a4a"]))
    for x, y in env.goals:
        axes.plot([x], [y], "*", markersize=9, color="#F0E442", markeredgecolor="black")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize="medium")


DISTANCE = "the largest distance of V^H(s) from the exact one in any cell"
SAME = "the share of cells in which the likeliest option is the exact one"
RETURN = "the expected return of the learned policies as a share of the exact ones'"

CLAIMS = (
    Claim(
        "four_rooms",
        "Thesis, section 4.1 (four rooms of Sutton, Precup and Singh, 1999, options lead to the hallways)",
        "Soft options with priors that lead to the hallways are learned by a soft actor-critic.",
        Rule(
            (
                Part(DISTANCE, at_most=0.5),
                Part(SAME, at_least=0.9),
                Part(RETURN, at_least=0.95),
            ),
            given=f"Over 103 cells; likeliest options count where they lead by {MARGIN:g}; IQM over seeds: ",
        ),
        {"smoke": "1 min", "quick": "3 min", "paper": "6 min"},
        four_rooms,
    ),
)
