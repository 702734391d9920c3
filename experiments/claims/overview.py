"""Algorithms by games: how many seeds succeed, for each pair that can work together."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import envs
from envs.errors import BadInputError
from jaxmarl_fac.algorithm import Algorithm
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import Result
from jaxmarl_fac.report.claims import Outcome, Workshop
from jaxmarl_fac.report.figures import panels, share_table
from jaxmarl_fac.report.styles import label_of
from jaxmarl_fac.report.verdicts import share
from jaxmarl_fac.statistics import Interval


@dataclasses.dataclass(frozen=True)
class Player:
    """An algorithm of an overview.

    Attributes:
        algorithm: its value.
        env_steps: by scale.
        seeds: by scale.
    """

    algorithm: Algorithm
    env_steps: Mapping[str, int]
    seeds: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Game:
    """A game of an overview.

    Attributes:
        about: what success is, for the label of its column.
        succeeds: whether each seed does, `(seeds,)`, of a finished run.
        probe: see `Experiment`.
        episodes: of the evaluation.
    """

    about: str
    succeeds: Callable[[Result], np.ndarray]
    probe: Any = None
    episodes: int = 1


def returns(at_least: float) -> Callable[[Result], np.ndarray]:
    """Success is a mean greedy return of at least this, up to rounding."""
    return lambda result: np.asarray(result.history.last["episode_return"] >= at_least - 1e-3)


#: Games in which two agents share a reward.
TEAM_GAMES = {
    "matrix-penalty": Game("one of two\noptima of 10", returns(10)),
    "matrix-climbing-t": Game("the optimum\nof 11", returns(11)),
    "two-step": Game("8, not the\nsafe 7", returns(8)),
    "random-state": Game("10 in both\nstates", returns(10), episodes=16),
}


def success(algorithm: str, game: str) -> str:
    """The name of what is measured of a pair."""
    return f"share of {algorithm}'s seeds that succeed in {game}"


def unplayable(algorithm: Algorithm, game: str) -> str:
    """Why the two do not go together, in a few words; empty if they do."""
    try:
        algorithm.bind(GameSpec.of(envs.make(game)))
    except BadInputError as error:
        return str(error).partition(", but")[0].partition(":")[0].removeprefix("the algorithm ")
    return ""


def overview(
    workshop: Workshop, players: Mapping[str, Player], games: Mapping[str, Game], title: str
) -> Outcome:
    """Train every pair that can work, and show shares of seeds with Wilson intervals."""
    cells: dict[str, dict[str, Interval | str]] = {}
    for name, player in players.items():
        cells[name] = {}
        for game, spec in games.items():
            if reason := unplayable(player.algorithm, game):
                cells[name][game] = reason
                continue
            experiment = Experiment(
                algorithm=player.algorithm,
                environment=envs.make(game),
                seeds=workshop.seeds(**player.seeds),
                env_steps=workshop.choose(**player.env_steps),
                evaluations=1,
                evaluation_episodes=spec.episodes,
                probe=spec.probe,
            )
            cells[name][game] = share(spec.succeeds(workshop.train(f"overview-{game}-{name}", experiment)))
    measured = {
        success(name, game): cell
        for name, row in cells.items()
        for game, cell in row.items()
        if isinstance(cell, Interval)
    }
    figure, axes = panels(1, 1, (1.9 * len(games) + 1.6, 0.62 * len(players) + 1.6), title)
    share_table(
        axes[0, 0],
        [list(row.values()) for row in cells.values()],
        [label_of(name) for name in players],
        [f"{game}\n{spec.about}" for game, spec in games.items()],
    )
    why = "Seeds that succeed: " + "; ".join(f"{game}: {_listed(cells, game)}" for game in games) + "."
    return Outcome(figure, {}, {"share of seeds that succeed": cells}, measured, why)


def _listed(cells: Mapping[str, Mapping[str, Interval | str]], game: str) -> str:
    shares = {name: row[game] for name, row in cells.items()}
    return ", ".join(
        f"{name} {cell.value:.0%}" for name, cell in shares.items() if isinstance(cell, Interval)
    )
