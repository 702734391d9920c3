"""Benchmark this suite beside JaxMARL: the same games, algorithms and settings, by turns on the same cores.

python experiments/benchmark.py peers --peer-python PYTHON --peer-checkout DIR [--games NAME ...]
    [--seeds N ...] [--env-steps N] [--seconds S] [--rounds N] [--patience S] [--resume] [--out DIR]

PYTHON is that of an environment with this suite and JaxMARL (pip install -e '.[peers]' -c constraints.txt),
in which both train; DIR a checkout of JaxMARL, whose scripts and published settings are read. Two processes
are asked by turns to train for some seconds. Timed is only learning, from compiled functions that have run
before: of theirs, which are whole trainings, the difference of a longer and a shorter one. The minimum over
the rounds counts, since interference only ever slows a run down. An update is a rollout of all environments
of a seed with its gradient steps; rates are of all seeds together. Returns are means of 128 greedy episodes
over the last half of 20 evaluations in a training of --env-steps, of which JaxMARL trains one seed after
the other.

Where a process does not answer within --patience seconds, or fails, the table says so, and after how long.
What --out has of other games and numbers of seeds is kept, so that parts can be measured one by one.
"""

import contextlib
import dataclasses
import json
import math
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from envs.errors import BadInputError
from experiments.benchmark_peers_settings import PAIRS, Pair, differences, our_settings, read_settings, warmup
from experiments.benchmark_workers import NoAnswerError, Worker
from jaxmarl_fac import cli
from jaxmarl_fac.files import prepare_folder, write_text
from jaxmarl_fac.report.figures import panels, save
from jaxmarl_fac.statistics import bootstrap_interval

#: Greedy evaluations of a training, evenly spread, and the episodes of each.
EVALUATIONS, EPISODES = 20, 128
#: Seeds of which returns are compared.
RETURN_SEEDS = 8
#: What is counted of both learners, and how the table calls it.
COUNTED = {
    "num_envs": "environments",
    "env_steps_per_update": "environment steps per update",
    "gradient_steps_per_update": "gradient steps per update",
    "batch_size": "batch",
    "replay_size": "replay",
    "parameters": "parameters",
}
SIDES = {"theirs": "JaxMARL", "ours": "this suite"}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        peer_python: the interpreter of an environment with this suite and its extra `peers`.
        peer_checkout: folder of a checkout of JaxMARL.
        games: vdn-mpe, qmix-mpe, pqn-mpe, qmix-smax: VDN, recurrent QMIX and PQN on simple_spread, and
            recurrent QMIX on SMAX's 3m.
        seeds: numbers of seeds that train together.
        env_steps: environment steps of each seed where returns are compared, for all games; 0 for no returns.
            If not given 500,000 of VDN, 200,000 of QMIX and 100,000 of PQN on simple_spread, 0 on SMAX.
        seconds: target length of one timed run.
        rounds: timed runs of each side, by turns.
        patience: the most seconds that a process may take for one answer: to compile, for a timed run, or for
            the trainings of which returns are compared.
        resume: measure only what --out lacks.
        out: folder for benchmark.md, benchmark.json and benchmark.png.
    """

    peer_python: Path
    peer_checkout: Path
    games: tuple[str, ...] = tuple(PAIRS)
    seeds: tuple[int, ...] = (1, 8)
    env_steps: int | None = None
    seconds: float = 3.0
    rounds: int = 3
    patience: float = 150.0
    resume: bool = False
    out: Path = Path("runs/benchmark-peers")


def main(argv: Sequence[str]) -> int:
    """Measure both, and write the table after each part; returns the exit status."""
    options = cli.parse(Options, argv, description=__doc__)
    settings = check(options)
    prepare_folder(options.out)
    record = read_record(options.out)
    check_workers(options)
    speeds = [(game, seeds) for game in options.games for seeds in options.seeds]
    steps = {
        game: PAIRS[game].env_steps if options.env_steps is None else options.env_steps
        for game in options.games
    }
    trainings = [game for game in options.games if steps[game]]
    with tqdm(total=len(speeds) + len(trainings), disable=None) as progress:
        for game, seeds in speeds:
            name = f"{game} {seeds}"
            if not (options.resume and name in record["cells"]):
                with Both(options.peer_python) as both:
                    record["cells"][name] = {
                        "game": game,
                        "seeds": seeds,
                        **measure(both, PAIRS[game], settings[game], seeds, options),
                    }
                write(record, options.out)
            progress.update()
        for game in trainings:
            if not (options.resume and game in record["returns"]):
                with Both(options.peer_python) as both:
                    record["returns"][game] = {
                        "env_steps": steps[game],
                        **compare_returns(both, PAIRS[game], settings[game], steps[game], options),
                    }
                write(record, options.out)
            progress.update()
    plot(record, options.out / "benchmark.png")
    print(markdown(record))
    print(f"written to {options.out}")
    return cli.DONE


def check(options: Options) -> dict[str, dict[str, Any]]:
    """JaxMARL's settings of each game.

    Raises:
        BadInputError: for flags out of range, or a checkout that is none.
    """
    for name in ("games", "seeds"):
        if not getattr(options, name):
            raise BadInputError(f"--{name} needs at least one")
    for game in options.games:
        if game not in PAIRS:
            raise BadInputError(f"unknown game {game!r}: choose from {', '.join(PAIRS)}")
    if min(options.seeds) < 1:
        raise BadInputError(f"--seeds must be at least 1, not {min(options.seeds)}")
    if options.rounds < 2:
        raise BadInputError(f"--rounds must be at least 2, as both take turns, not {options.rounds}")
    for name in ("seconds", "patience"):
        if not 0 < getattr(options, name) < math.inf:
            raise BadInputError(f"--{name} must be above 0 and finite, not {getattr(options, name)}")
    settings = {game: read_settings(PAIRS[game], options.peer_checkout) for game in options.games}
    for game, theirs in settings.items():
        least = (warmup(PAIRS[game], theirs) + 2) * theirs["NUM_STEPS"] * theirs["NUM_ENVS"]
        if options.env_steps and options.env_steps < least:
            raise BadInputError(
                f"--env-steps must be 0 (no returns) or at least {least}, for {game} to learn anything, not "
                f"{options.env_steps}"
            )
    return settings


class Both:
    """A process for each side, in one order throughout."""

    def __init__(self, python: Path):
        modules = {side: f"experiments.benchmark_peers_{side}" for side in SIDES}
        with contextlib.ExitStack() as stack:
            try:
                self.workers = {
                    side: stack.enter_context(Worker(python.absolute(), module))
                    for side, module in modules.items()
                }
            except OSError as error:
                raise BadInputError(f"--peer-python {python} cannot be started: {error.strerror}") from error
            self._stack = stack.pop_all()

    def __enter__(self) -> "Both":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def check_workers(options: Options) -> None:
    """Start both sides, and import every script.

    Raises:
        BadInputError: if the interpreter lacks what either needs.
    """
    with Both(options.peer_python) as both:
        for side, worker in both.workers.items():
            for game in options.games:
                try:
                    worker.ask(options.patience, "load", **loaded(side, PAIRS[game], options))
                except NoAnswerError as error:
                    needs = PAIRS[game].script_in(options.peer_checkout) if side == "theirs" else SIDES[side]
                    raise BadInputError(
                        f"--peer-python {options.peer_python} cannot run {needs}: {error}; it needs "
                        "pip install -e '.[peers]' -c constraints.txt"
                    ) from error


def loaded(side: str, pair: Pair, options: Options) -> dict[str, Any]:
    """What a side is told to load."""
    return {"script": str(pair.script_in(options.peer_checkout))} if side == "theirs" else {}


def measure(both: Both, pair: Pair, settings: dict[str, Any], seeds: int, options: Options) -> dict[str, Any]:
    """Compile both sides, and time them by turns.

    Returns:
        `theirs` and `ours`, with the rates or why there is no answer, and `differences`.
    """
    requests: dict[str, dict[str, Any]] = {
        "theirs": {"settings": settings, "warmup": warmup(pair, settings)},
        "ours": {"ours": our_settings(pair, settings, int(settings["TOTAL_TIMESTEPS"]))},
    }
    cell: dict[str, Any] = {side: {"times": []} for side in SIDES}
    for side, worker in both.workers.items():
        with noted(cell[side]):
            cell[side] |= worker.ask(options.patience, "load", **loaded(side, pair, options))
            cell[side] |= worker.ask(
                options.patience, "compile", seeds=seeds, seconds=options.seconds, **requests[side]
            )
    for _ in range(options.rounds):
        for side, worker in both.workers.items():
            if "no_answer" not in cell[side]:
                with noted(cell[side]):
                    cell[side]["times"].append(worker.ask(options.patience, "time"))
    for side in SIDES:
        cell[side] |= rates(cell[side], seeds)
    return {**cell, "differences": differences(pair, settings)}


@contextlib.contextmanager
def noted(side: dict[str, Any]) -> Iterator[None]:
    """Write down that, and after how long, a side gives no answer."""
    try:
        yield
    except NoAnswerError as error:
        side |= {"no_answer": str(error), "seconds": error.seconds}


def rates(side: dict[str, Any], seeds: int) -> dict[str, Any]:
    """Updates and environment steps per second of all seeds, by the fastest rounds."""
    if "no_answer" in side:
        return {}
    times = side["times"]
    taken = min(each["whole"] for each in times) - min(each["before"] for each in times)
    if taken <= 0:
        why = "a longer training took no longer than a shorter one (raise --seconds)"
        return {"no_answer": why, "seconds": sum(each["whole"] for each in times)}
    updates = seeds * times[0]["updates"] / taken
    return {"updates_per_s": updates, "env_steps_per_s": updates * side["env_steps_per_update"]}


def compare_returns(
    both: Both, pair: Pair, settings: dict[str, Any], env_steps: int, options: Options
) -> dict[str, Any]:
    """Train both sides one after the other; each side's returns by seed and their interval."""
    requests: dict[str, dict[str, Any]] = {
        "theirs": {"settings": settings},
        "ours": {"ours": our_settings(pair, settings, env_steps)},
    }
    found: dict[str, Any] = {side: {} for side in SIDES}
    for side, worker in both.workers.items():
        with noted(found[side]):
            worker.ask(options.patience, "load", **loaded(side, pair, options))
            answer = worker.ask(
                options.patience,
                "returns",
                seeds=RETURN_SEEDS,
                env_steps=env_steps,
                evaluations=EVALUATIONS,
                episodes=EPISODES,
                **requests[side],
            )
            curves = np.asarray(answer["returns"])  # (evaluations, seeds)
            late = curves[len(curves) // 2 :].mean(axis=0)
            found[side] = {"returns": late.tolist(), "interval": bootstrap_interval(late).to_json()}
    return found


def read_record(out: Path) -> dict[str, Any]:
    """What `out` has of earlier parts.

    Raises:
        BadInputError: if its record is of something else.
    """
    path = out / "benchmark.json"
    if not path.exists():
        return {"cells": {}, "returns": {}}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {"cells", "returns"} <= set(record)
    except (OSError, ValueError, TypeError):
        known = False
    if not known:
        raise BadInputError(f"{path} is no record of this benchmark: choose another --out, or remove it")
    return record


def write(record: dict[str, Any], out: Path) -> None:
    """Write the record and the table."""
    write_text(out / "benchmark.json", json.dumps(record, indent=1))
    write_text(out / "benchmark.md", markdown(record))


def ordered(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells by game and number of seeds."""
    games = list(PAIRS)
    return sorted(record["cells"].values(), key=lambda cell: (games.index(cell["game"]), cell["seeds"]))


def ratio(cell: dict[str, Any]) -> float | None:
    """Our speed by theirs; None where either gives no answer."""
    speeds = [cell[side].get("env_steps_per_s") for side in ("ours", "theirs")]
    return speeds[0] / speeds[1] if all(speeds) else None


def markdown(record: dict[str, Any]) -> str:
    """The table, preceded by the machine, and followed by what is equal and what is not."""
    cells = ordered(record)
    machines = dict.fromkeys(_machine(cell) for cell in cells)
    lines = [
        f"JaxMARL and this suite by turns on {'; '.join(machines) or platform.machine()}. Rates are of all "
        "seeds together, by the fastest rounds, without compiling.",
        "",
        "| game | seeds | code | environment steps/s | updates/s | compile s | return | ours by theirs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        for side, name in SIDES.items():
            times = ratio(cell)
            columns = [
                cell["game"],
                str(cell["seeds"]),
                name,
                *_speed(cell[side]),
                _return(record["returns"].get(cell["game"], {}), side),
                f"{times:.2f}" if times and side == "ours" else "",
            ]
            lines.append(f"| {' | '.join(columns)} |")
    lines.append("")
    for game in dict.fromkeys(cell["game"] for cell in cells):
        lines += [*_settings(next(cell for cell in cells if cell["game"] == game)), ""]
    for game, found in record["returns"].items():
        lines.append(
            f"Returns of {game} over the last half of {found['env_steps']:,} steps of each of {RETURN_SEEDS} "
            "seeds, with 95 % intervals."
        )
    return "\n".join(lines).rstrip() + "\n"


def _machine(cell: dict[str, Any]) -> str:
    """What a cell was measured on."""
    side = next((cell[side] for side in ("ours", "theirs") if "devices" in cell[side]), None)
    if side is None:
        return platform.machine()
    versions = {**cell["theirs"].get("versions", {}), **side["versions"]}
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version)
    return f"{len(side['cores']) or os.cpu_count()} cores ({platform.machine()}; {named})"


def _speed(side: dict[str, Any]) -> list[str]:
    """Environment steps/s, updates/s and compile seconds."""
    if "no_answer" in side:
        return [_no_answer(side), "", ""]
    return [
        f"{side['env_steps_per_s']:,.0f}",
        f"{side['updates_per_s']:,.1f}" if side["updates_per_s"] >= 10 else f"{side['updates_per_s']:.3g}",
        f"{side['compile_seconds']:.1f}",
    ]


def _return(found: dict[str, Any], side: str) -> str:
    """The return of a side, with its interval."""
    if "interval" in found.get(side, {}):
        return "{value:.2f} [{low:.2f}, {high:.2f}]".format(**found[side]["interval"])
    return _no_answer(found[side]) if side in found else ""


def _no_answer(side: dict[str, Any]) -> str:
    """Why there is none, and after how many seconds that was known."""
    return f"{side['no_answer']} after {side['seconds']:.0f} s"


def _settings(cell: dict[str, Any]) -> list[str]:
    """What was counted of both learners of a game, and in what they differ: lines of a list."""
    theirs, ours = cell["theirs"], cell["ours"]
    known = {name: label for name, label in COUNTED.items() if name in theirs and name in ours}
    same = [f"{label} {ours[name]:,}" for name, label in known.items() if theirs[name] == ours[name]]
    other = [
        f"{label} {ours[name]:,}, theirs {theirs[name]:,}"
        for name, label in known.items()
        if theirs[name] != ours[name]
    ]
    lines = [f"{cell['game']}:", ""]
    if same:
        lines.append(f"- the same, counted in both: {', '.join(same)}")
    return [*lines, *(f"- different: {text}" for text in [*other, *cell["differences"]])]


def plot(record: dict[str, Any], path: Path) -> None:
    """Plot how many times as fast as JaxMARL this suite is, or that one of them gives no answer."""
    cells = ordered(record)[::-1]
    figure, axes = panels(1, 1, (6.0, 0.6 + 0.4 * max(3, len(cells))), "Speed beside JaxMARL")
    names = [f"{cell['game']}, {cell['seeds']} seed{'s' * (cell['seeds'] > 1)}" for cell in cells]
    for place, cell in enumerate(cells):
        times = ratio(cell) or 0.0
        missing = " and ".join(name for side, name in SIDES.items() if "no_answer" in cell[side])
        axes[0, 0].barh(place, times, color="#6A89B5")
        axes[0, 0].text(times, place, f" no answer: {missing}" if missing else f" {times:.2f}", va="center")
    axes[0, 0].axvline(1, color="0.5", linewidth=1)
    axes[0, 0].set_yticks(range(len(cells)), names)
    axes[0, 0].set_xlim(0, 1.3 * max([1.0, *(ratio(cell) or 0.0 for cell in cells)]))
    axes[0, 0].set_xlabel("environment steps per second, ours by theirs")
    save(figure, path)
