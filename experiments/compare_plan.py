"""Which pairs of algorithm and game a comparison trains, and with which settings."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import baselines.registry as algorithms
import envs.registry as environments
from baselines.families import FAMILY_ENV_STEPS
from envs.errors import BadInputError
from experiments import train
from experiments.sweep_file import read_yaml
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.settings import leaves

Scale = Literal["smoke", "quick", "paper"]
#: Settings of a run, beside those of the algorithm and the game, that may differ between pairs.
RUN_SETTINGS = ("env_steps", "num_envs", "updates_per_step", "evaluations", "evaluation_episodes")
#: Environment steps at the scale "quick", or the family's own if these are fewer.
QUICK_STEPS = 20_000
#: Updates that the shortest run still makes.
FEWEST_UPDATES = 4

#: By name.
Overrides = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class OverridesFile:
    """Settings that differ from the family's, by what they are for; the later ones count.

    Attributes:
        path: of the file, for messages.
        algos: settings by algorithm.
        envs: settings by game: parameters of the game, settings of the run, and those of all algorithms that
            have them.
        pairs: settings by algorithm and game.
    """

    path: Path | None = None
    algos: Mapping[str, Overrides] = dataclasses.field(default_factory=dict)
    envs: Mapping[str, Overrides] = dataclasses.field(default_factory=dict)
    pairs: Mapping[tuple[str, str], Overrides] = dataclasses.field(default_factory=dict)

    def error(self, message: str) -> BadInputError:
        """What is wrong with the file."""
        return BadInputError(f"overrides {self.path}: {message}")


@dataclasses.dataclass(frozen=True)
class Pair:
    """An algorithm on a game."""

    algorithm: str
    env: str
    experiment: Experiment

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.algorithm} on {self.env}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Pairs to train, game by game, and pairs that do not work, with the reason."""

    pairs: tuple[Pair, ...]
    left_out: Mapping[tuple[str, str], str]


def make_plan(
    algorithm_ids: Sequence[str],
    env_ids: Sequence[str],
    seeds: int,
    scale: Scale,
    env_steps: int | None,
    overrides: OverridesFile,
) -> Plan:
    """The experiments of all pairs that work.

    Args:
        algorithm_ids: of the registry, or of the user's own module.
        env_ids: likewise.
        seeds: number of seeds of each.
        scale: how long to train.
        env_steps: of every pair, instead of the scale's.
        overrides: see `read_overrides`.

    Raises:
        BadInputError: for an unknown id or setting, a value that cannot be, or if no pair works.
    """
    for name in algorithm_ids:
        algorithms.lookup(name)
    for name in env_ids:
        environments.lookup(name)
    _check_settings(overrides, algorithm_ids, env_ids)
    pairs, left_out = [], {}
    for env in env_ids:
        of_env = []
        for algorithm in algorithm_ids:
            pair = Pair(algorithm, env, _experiment(algorithm, env, seeds, overrides))
            reason = _unplayable(pair.experiment)
            if reason:
                left_out[algorithm, env] = reason
            else:
                of_env.append(pair)
        for pair in _with_lengths(of_env, scale, env_steps, overrides):
            if pair.experiment.schedule.updates(pair.experiment.iterations):
                pairs.append(pair)
            else:
                left_out[pair.algorithm, env] = (
                    f"nothing would be learned within {pair.experiment.env_steps:,} environment steps: its "
                    f"first update comes after {pair.experiment.schedule.warmup * pair.experiment.num_envs:,}"
                )
    if not pairs:
        (algorithm, env), reason = next(iter(left_out.items()))
        raise BadInputError(f"no pair works: {algorithm} on {env}: {reason}")
    return Plan(tuple(pairs), left_out)


def read_overrides(path: Path | None) -> OverridesFile:
    """Read settings from YAML; none without a file.

    The file has up to three parts: `algos`, settings by algorithm; `envs`, settings by game; and `pairs`,
    settings by algorithm and then by game.

    Raises:
        BadInputError: if it cannot be read, has another form, or names an id that there is not.
    """
    if path is None:
        return OverridesFile()
    content, empty = read_yaml(path, "overrides"), OverridesFile(path)
    parts = _mapping({} if content is None else content, empty, "the file")
    unknown = [name for name in parts if name not in ("algos", "envs", "pairs")]
    if unknown:
        raise empty.error(f"{unknown[0]!r} is not a part of it: choose from algos, envs, pairs")

    def read(part: Any, name: str, lookup: Any) -> dict[str, Any]:
        found = _mapping({} if part is None else part, empty, name)
        for each in found:
            try:
                lookup(each)
            except BadInputError as error:
                raise empty.error(str(error)) from error
        return found

    algos = read(parts.get("algos"), "algos", algorithms.lookup)
    games = read(parts.get("envs"), "envs", environments.lookup)
    pairs = {
        (algorithm, env): settings
        for algorithm, of_env in read(parts.get("pairs"), "pairs", algorithms.lookup).items()
        for env, settings in read(of_env, f"pairs, {algorithm}", environments.lookup).items()
    }
    return OverridesFile(
        path,
        {name: _settings(settings, empty, name) for name, settings in algos.items()},
        {name: _settings(settings, empty, name) for name, settings in games.items()},
        {pair: _settings(settings, empty, " on ".join(pair)) for pair, settings in pairs.items()},
    )


def _mapping(value: Any, file: OverridesFile, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise file.error(f"{name} must be names with what belongs to them, such as `qmix: {{...}}`")
    return value


def _settings(value: Any, file: OverridesFile, name: str) -> dict[str, Any]:
    found = {}
    for key, each in _mapping({} if value is None else value, file, name).items():
        plain = [*each] if isinstance(each, list) else [each]
        if not plain or not all(isinstance(item, bool | int | float | str | None) for item in plain):
            raise file.error(f"{name}: {key} must be a number, text, true, false, null or a list of these")
        found[key.replace("-", "_")] = each
    return found


def _check_settings(overrides: OverridesFile, algorithm_ids: Sequence[str], env_ids: Sequence[str]) -> None:
    """Refuse settings that nobody in the comparison has."""
    known = {name: set(leaves(algorithms.lookup(name))) for name in algorithm_ids}
    for name, settings in overrides.algos.items():
        _refuse_unknown(overrides, name, settings, known.get(name))
    for (name, env), settings in overrides.pairs.items():
        _refuse_unknown(overrides, f"{name} on {env}", settings, known.get(name))
    for env, settings in overrides.envs.items():
        if env in env_ids:
            every = set[str]().union(*known.values(), _parameters(env))
            _refuse_unknown(overrides, env, settings, every, "neither it nor any of the algorithms has")


def _refuse_unknown(
    overrides: OverridesFile, name: str, settings: Overrides, known: set[str] | None, told: str = "it has no"
) -> None:
    if known is None:  # not part of this comparison
        return
    unknown = [each for each in settings if each not in known and each not in RUN_SETTINGS]
    if unknown:
        has = "a setting" if told.endswith("has") else "setting"
        raise overrides.error(f"{name}: {told} {has} {unknown[0]!r}")


@functools.cache
def _parameters(env: str) -> frozenset[str]:
    """The parameters of a game that can be set."""
    return frozenset(train.resolve(train.Pair(algo=next(iter(algorithms.ALGORITHMS)), env=env))[2])


def _experiment(algorithm: str, env: str, seeds: int, overrides: OverridesFile) -> Experiment:
    """As train.py makes it, which reads the settings as its flags."""
    own = set(leaves(algorithms.lookup(algorithm))) | set(RUN_SETTINGS) | _parameters(env)
    of_env = {name: value for name, value in overrides.envs.get(env, {}).items() if name in own}
    settings = {
        **overrides.algos.get(algorithm, {}),
        **of_env,
        **overrides.pairs.get((algorithm, env), {}),
    }
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    try:
        experiment = train.prepare([f"--algo={algorithm}", f"--env={env}", f"--seeds={seeds}", *flags])[1]
        if experiment.variants:
            raise BadInputError(f"{experiment.variants[0][0]} must be one number: variants are not compared")
        return experiment
    except BadInputError as error:
        raise (overrides.error(f"{algorithm} on {env}: {error}") if flags else error) from error


def _unplayable(experiment: Experiment) -> str:
    """Why the pair cannot work; empty if it can."""
    if experiment.game.reward_per_agent:
        return f"{experiment.game.name} has a reward per agent here, and the comparison is of team rewards"
    try:
        experiment.schedule  # noqa: B018  binds the algorithm
    except BadInputError as error:
        return str(error)
    return ""


def _with_lengths(
    pairs: Sequence[Pair], scale: Scale, env_steps: int | None, overrides: OverridesFile
) -> list[Pair]:
    """The pairs of one game with their environment steps: the same for all, unless the overrides differ.

    "smoke" is as short as every algorithm can still learn something in; "quick" never shorter than that.
    """
    if not pairs:
        return []
    shortest = 0
    for pair in pairs:
        warmup, update_every, _ = pair.experiment.bind().periods
        shortest = max(shortest, (warmup + FEWEST_UPDATES * update_every) * pair.experiment.num_envs)
    family = FAMILY_ENV_STEPS[environments.lookup(pairs[0].env).family]
    of_scale = {"smoke": shortest, "quick": max(min(QUICK_STEPS, family), shortest), "paper": family}
    length = of_scale[scale] if env_steps is None else env_steps

    def lengthened(pair: Pair) -> Pair:
        parts = (
            overrides.algos.get(pair.algorithm, {}),
            overrides.envs.get(pair.env, {}),
            overrides.pairs.get((pair.algorithm, pair.env), {}),
        )
        given = {name for part in parts for name in part}
        changes: dict[str, Any] = {} if "env_steps" in given else {"env_steps": length}
        if scale == "smoke" and env_steps is None:
            changes |= {name: 2 for name in ("evaluations", "evaluation_episodes") if name not in given}
        return dataclasses.replace(pair, experiment=dataclasses.replace(pair.experiment, **changes))

    return [lengthened(pair) for pair in pairs]
