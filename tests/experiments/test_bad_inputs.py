"""Every kind of bad input to every script: one line that names what is wrong, status 2, nothing written."""

import itertools
import json
import os
import sys

import jax
import numpy as np
import pytest

import baselines
import envs
from baselines.registry import ALGORITHMS
from experiments import (
    benchmark,
    compare,
    play,
    plot,
    reproduce_belief,
    reproduce_fqi,
    reproduce_ltql,
    reproduce_memarl,
    reproduce_options,
    reproduce_qplex,
    reproduce_qtran,
    reproduce_remix,
    results_page,
    sweep,
    train,
)
from jaxmarl_fac import cli, program
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.play import Player
from jaxmarl_fac.report import script
from jaxmarl_fac.saved import to_json
from jaxmarl_fac.settings import leaves
from jaxmarl_fac.tracking import History

REPRODUCTIONS = {
    "qtran": reproduce_qtran,
    "qplex": reproduce_qplex,
    "remix": reproduce_remix,
    "fqi": reproduce_fqi,
    "ltql": reproduce_ltql,
    "memarl": reproduce_memarl,
    "options": reproduce_options,
    "belief": reproduce_belief,
}
SCRIPTS = {
    "train": train,
    "play": play,
    "sweep": sweep,
    "benchmark": benchmark,
    "plot": plot,
    "compare": compare,
    "results_page": results_page,
    **REPRODUCTIONS,
}
COMPARISON = ["compare", "--algos", "iql-tabular", "--envs", "matrix-qtran"]
RUN = Experiment(
    algorithm=baselines.make("iql-tabular"), environment=envs.make("matrix-qtran"), seeds=(0, 1), env_steps=30
)
HUGE = ("4294967296", "9223372036854775808", "1" + "0" * 27)
LONG = "x" * 300
#: A file name that is no text, and one that is not ASCII.
BYTES = os.fsdecode(b"\xff")
NOT_THERE = "No such file or directory"


def record(**changed):
    """experiment.json of a run, with some of it changed: `environment__payoff__shape` goes into its parts."""
    whole = to_json(RUN)
    for path, value in changed.items():
        *parts, name = path.split("__")
        place = whole
        for part in parts:
            place = place[part]
        place[name] = value
    return json.dumps(whole).encode()


#: What files hold that are no payoff.
PAYOFFS = {
    "empty.json": b"",
    "text.json": b"payoff",
    "bytes.json": b"\xff\xfe\x00",
    "digits.json": b"[[" + b"9" * 5000 + b", 1], [2, 3]]",
    "number.json": b"5",
    "null.json": b"null",
    "string.json": b'"payoff"',
    "no-rows.json": b"[]",
    "empty-rows.json": b"[[], []]",
    "ragged.json": b"[[1, 2], [3]]",
    "words.json": b'[["a", "b"], ["c", "d"]]',
    "hole.json": b"[[1, null], [2, 3]]",
    "objects.json": b'[[1, {"a": 2}], [2, 3]]',
    "nan.json": b"[[NaN, 1], [2, 3]]",
    "infinity.json": b"[[1e999, 1], [2, 3]]",
    "object.json": b"{}",
    "no-payoffs.json": b'{"payoffs": []}',
    "scalar-payoffs.json": b'{"payoffs": 5}',
    "one-payoff.json": b'{"payoffs": [[[1]]]}',
    "two-shapes.json": b'{"payoffs": [[[1, 2]], [[1, 2], [3, 4]]]}',
    "deep.json": b"[" * 100_000,
    "400-digits.json": b"[[" + b"9" * 400 + b", 1], [2, 3]]",
    "broken-zip.npy": b"PK\x03\x04" + b"\x00" * 40,
    "empty.npy": b"",
    "cut.npy": b"\x93NUMPY",
    "payoff.txt": b"[[1, 2], [3, 4]]",
    "payoff": b"[[1, 2], [3, 4]]",
}
#: Numbers of runs that are none, and how they are said.
CAPS = {b"0": "0", b"-1": "-1", b"1.5": "1.5", b"1000000000000": "1000000000000", b"x": "'x'"}
CAPS |= {b"[1]": "[1]", b"true": "True"}
#: What files hold that are no sweep, and what is said of them.
GRID, RANDOM = b"method: grid\nparameters: ", b"method: random\nparameters: "
SWEEPS = {
    "empty": (b"", "needs `parameters`"),
    "scalar": (b"5", "needs `parameters`"),
    "list": (b"[1]", "needs `parameters`"),
    "null": (b"null", "needs `parameters`"),
    "bytes": (b"\xff\xfe\x00", "is not valid YAML"),
    "nul": (b"\x00", "is not valid YAML"),
    "cut": (b"a: [", "is not valid YAML"),
    "two-documents": (b"--- 1\n--- 2", "is not valid YAML"),
    "object": (b"!!python/object:os.system {}", "is not valid YAML"),
    "no-parameters": (b"method: grid", "needs `parameters`"),
    "scalar-parameters": (GRID + b"5", "needs `parameters`"),
    "empty-parameters": (GRID + b"{}", "`parameters` is empty"),
    "no-method": (b"parameters: {a: {value: 1}}", "method is None"),
    "bayes": (b"method: bayes\nparameters: {a: {value: 1}}", "method bayes runs at W&B only"),
    "list-method": (b"method: [grid]\nparameters: {a: {value: 1}}", "method is ['grid']"),
    "null-parameter": (GRID + b"{a: null}", "parameter a: "),
    "list-parameter": (RANDOM + b"{a: []}", "parameter a: "),
    "no-values": (GRID + b"{a: {}}", "parameter a: "),
    "scalar-values": (GRID + b"{a: {values: 5}}", "parameter a: "),
    "empty-values": (GRID + b"{a: {values: []}}", "parameter a: "),
    "null-values": (RANDOM + b"{a: {values: null}}", "parameter a: "),
    "object-values": (RANDOM + b"{a: {values: {b: 1}}}", "parameter a: "),
    "nested": (RANDOM + b"{a: {parameters: {b: {value: 1}}}}", "parameter a: "),
    "number-name": (GRID + b"{5: {value: 1}}", "parameter 5: "),
    "empty-name": (GRID + b"{'': {value: 1}}", "parameter '': "),
    "name-of-two-words": (GRID + b"{a b: {value: 1}}", "parameter 'a b': "),
    "no-max": (RANDOM + b"{a: {min: 1}}", "parameter a: "),
    "no-min": (RANDOM + b"{a: {max: 1}}", "parameter a: "),
    "null-bound": (RANDOM + b"{a: {min: null, max: 1}}", "parameter a: "),
    "text-bounds": (RANDOM + b"{a: {min: x, max: y}}", "parameter a: "),
    "list-bound": (RANDOM + b"{a: {min: [1], max: 2}}", "parameter a: "),
    "reversed": (RANDOM + b"{a: {min: 2, max: 1}}", "parameter a: "),
    "infinite-bound": (RANDOM + b"{a: {min: .inf, max: 1}}", "parameter a: "),
    "nan-bound": (RANDOM + b"{a: {min: .nan, max: 1}}", "parameter a: "),
    "log-of-0": (
        RANDOM + b"{a: {min: 0, max: 1, distribution: log_uniform_values}}",
        "parameter a: ",
    ),
    "half-int": (
        RANDOM + b"{a: {min: 1.5, max: 2.5, distribution: int_uniform}}",
        "parameter a: min must be a whole number",
    ),
    "beyond-64-bits": (RANDOM + b"{a: {min: 1, max: 1" + b"0" * 20 + b"}}", "parameter a: max must be"),
    "number-distribution": (
        RANDOM + b"{a: {min: 1, max: 2, distribution: 5}}",
        "parameter a: distribution 5",
    ),
    **{
        f"run_cap-{cap.decode()}": (
            RANDOM + b"{a: {min: 0, max: 1}}\nrun_cap: " + cap,
            f"run_cap must be a whole number from 1 to 10000, not {said}",
        )
        for cap, said in CAPS.items()
    },
}
#: The same for a run's experiment.json.
RECORDS = {
    "empty": b"",
    "cut": b"{",
    "bytes": b"\xff\xfe",
    "list": b"[]",
    "number": b"5",
    "null": b"null",
    "text": b'"text"',
    "no-keys": b"{}",
    "deep": b"[" * 100_000,
    "number-type": b'{"type": 5}',
    "foreign": b'{"type": "os:system"}',
    "missing-keys": b'{"type": "jaxmarl_fac.experiment:Experiment"}',
    "algorithm-alone": b'{"type": "baselines.vdn:VDN"}',
    "no-array": b'{"type": "array"}',
    "no-function": b'{"type": "function", "name": 5}',
    "nothing-there": b'{"type": "envs.base:nothing"}',
    "more-keys": record(more=1),
    "no-seeds": record(seeds=[]),
    "text-seeds": record(seeds="x"),
    "half-seeds": record(seeds=[0.5]),
    "same-seeds": record(seeds=[1, 1]),
    "huge-seeds": record(seeds=[2**40]),
    "text-steps": record(env_steps="x"),
    "null-steps": record(env_steps=None),
    "no-environments": record(num_envs=0),
    "games-below-0": record(games=-1),
    "games-not-there": record(games=5),
    "no-algorithm": record(algorithm=None),
    "no-environment": record(environment=5),
    "environment-learns": record(algorithm=to_json(RUN.environment)),
    "algorithm-plays": record(environment=to_json(RUN.algorithm)),
    "text-setting": record(algorithm__gamma="x"),
    "another-shape": record(environment__payoff__shape=[7]),
    "another-dtype": record(environment__payoff__dtype="nothing"),
}


def trains(*flags):
    return ["train", "--algo", "iql", "--env", "matrix-qtran", "--env-steps", "3000", *flags]


def cases():
    """Command lines with what the line about them says; `@` is the folder with the inputs."""
    counts = ("epsilon-steps", "target-period", "learning-starts", "batch-size", "replay-size")
    of_run = ("num-envs", "updates-per-step", "evaluations", "evaluation-episodes")
    for flag in (*counts, *of_run):
        name = flag.replace("-", "_")
        bound = "256, as each is compiled by itself" if flag == "updates-per-step" else "2147483647"
        yield trains(f"--{flag}", HUGE[0]), f"{name} must be at most {bound}, not {HUGE[0]}"
        yield trains(f"--{flag}", HUGE[2]), f"{name} must be at most {bound}, not 1"
        least = "0 (for target_rate) or above" if flag == "target-period" else "at least 1"
        yield trains(f"--{flag}=-1"), f"{name} must be {least}, not -1"
        yield trains(f"--{flag}", "1.5"), f"--{flag}"
    for huge in HUGE:
        yield trains("--seeds", huge), f"seeds must be at most 1048576, not {huge}"
        yield trains("--first-seed", huge), "seeds must be in [0, 4294967295]"
        yield trains("--env-steps", huge), "env_steps must be at most"
        yield trains("--root-key", huge), f"root_key must be in [0, 4294967295], not {huge}"
        yield ["play", "--run", "@/run", f"--key={huge}"], f"key must be in [0, 4294967295], not {huge}"
        yield ["play", "--run", "@/run", f"--episodes={huge}"], "episodes must be at most 1048576"
        yield ["benchmark", "--seeds", huge], f"seeds must be at most 1048576, not {huge}"
    for flag, bound in {
        "learning-rate": "above 0",
        "adam-eps": "above 0",
        "rmsprop-eps": "above 0",
        "gamma": "in [0, 1]",
        "epsilon-end": "in [0, 1]",
        "max-grad-norm": "0 (off) or above",
    }.items():
        name = flag.replace("-", "_")
        for value in ("-inf", "nan", "-1"):
            yield trains(f"--{flag}={value}"), f"{name} must be {bound}, not {value}"
        infinite = bound if "1]" in bound else "a finite number"
        yield trains(f"--{flag}", "inf"), f"{name} must be {infinite}, not inf"
        yield trains(f"--{flag}", "x"), f"--{flag}: could not convert"
    yield from (
        (
            trains(f"--checkpoint-seconds={value}"),
            "checkpoint_seconds must be a finite number, 0 or above, not",
        )
        for value in ("nan", "inf", "-1")
    )

    # Sizes and numbers of games
    for game, flags, says in (
        ("matrix-random", ["--agents", "70"], "agents must be from 1 to 32, not 70"),
        (
            "matrix-random",
            ["--payoff-seed", HUGE[0]],
            "payoff_seed must be in [0, 4294967295], not 4294967296",
        ),
        ("matrix-random", ["--payoff-seed=-1"], "payoff_seed must be in [0, 4294967295], not -1"),
        (
            "matrix-random",
            ["--actions", "10000000"],
            "a payoff of 10000000 actions for each of 2 agents would take",
        ),
        ("matrix-qtran", ["--stages", "32768"], "stages must be from 1 to 32767, not 32768"),
        ("matrix-penalty", ["--k=-inf"], "k must be a finite number, not -inf"),
        ("squeeze", ["--seed", HUGE[1]], "seed must be in [0, 4294967295], not 9223372036854775808"),
        ("squeeze", ["--mu", "inf"], "mu holds NaN or infinite entries"),
        ("catch-prey", ["--prey-speed", "inf"], "prey_speed must be a finite number, not inf"),
        (
            "catch-prey",
            ["--agents", "10000000"],
            "the angles between 10000000 agents would take 400 TB of memory",
        ),
        ("predator-prey-2", ["--time-limit", "99999999"], "time_limit must be from 1 to 32767, not 99999999"),
        (
            "predator-prey-2",
            ["--height", "100000", "--width", "100000"],
            "has more cells than a 32-bit integer can index",
        ),
        ("stag-hunt-p0", ["--view", "1000001"], "with a view of 1000001 would take 128 TB of memory"),
        ("team-mdp-random", ["--states", "40000"], "states must be from 1 to 32767, not 40000"),
        (
            "team-mdp-random",
            ["--states", "32767", "--actions", "9"],
            "and 9 actions would take 1.04 TB of memory",
        ),
        ("team-mdp-divergence", ["--time-limit", HUGE[2]], "time_limit must be from 1 to 32767, not 1"),
        ("tiger", ["--accuracy", "0.4"], "accuracy must be in [0.5, 1], not 0.4"),
        ("two-agent-tiger", ["--accuracy", "nan"], "accuracy must be in [0.5, 1], not nan"),
        ("hmm", ["--time-limit", "0"], "time_limit must be from 1 to 32767, not 0"),
        ("differential-grid", ["--points", "1"], "points must be at least 2, not 1"),
        ("differential", ["--variant", "papr"], "variant must be paper or code, not papr"),
        ("jumanji:Connector-v3", ["--grid-size", "0"], "grid_size must be from 1 to 100, not 0"),
        ("jumanji:RobotWarehouse-v0", ["--shelf-rows", "0"], "shelf_rows must be from 1 to 100, not 0"),
    ):
        algorithm = "sac" if game == "differential" else "iql"
        yield ["train", "--algo", algorithm, "--env", game, *flags], says

    # What is not there, or is no pair
    yield ["train"], "--algo is missing"
    yield ["train", "--algo", "iql"], "give either --env ID or --payoff FILE"
    yield ["train", "--algo", "iql", "--env", "two-step", "--payoff", "x.json"], "give either --env ID or"
    yield ["train", "--algo", "chess", "--env", "two-step"], "unknown algorithm 'chess'"
    yield ["train", "--algo", "iql", "--env", "chess"], "unknown environment 'chess'"
    yield ["train", "--algo", "iql", "--env", BYTES], r"unknown environment '\udcff'"
    yield ["train", "--algo", "iql", "--env", "jumanji:Snake-v1"], "unknown environment 'jumanji:Snake-v1'"
    yield ["train", "--algo", "iql", "--env", ":"], "unknown environment ':'"
    yield ["train", "--algo", ":", "--env", "two-step"], "unknown algorithm ':'"
    yield ["train", "--algo", "no_module:X", "--env", "two-step"], "no_module cannot be imported"
    yield ["train", "--algo", "iql", "--env", "no_module:x"], "no_module cannot be imported"
    yield ["train", "--algo", "json:loads", "--env", "two-step"], "must have a method bind"
    yield ["train", "--algo", "iql", "--env", "json:loads"], "json:loads"
    yield trains("--learning-rate", "1e-50"), "learning_rate must be 0 or at least 1.2e-38"
    yield trains("--adam-eps", "1e-60"), "adam_eps must be 0 or at least 1.2e-38"
    yield trains("--out", ""), "--out"
    yield trains("--out", "~nobody-at-all/x"), "--out"
    yield ["train", "--algo"], "--algo"
    yield ["train", "--algo", "qmix", "--env", "differential"], "the algorithm needs discrete actions"
    yield ["train", "--algo", "sac", "--env", "two-step"], "the algorithm needs continuous actions"
    yield ["train", "--algo", "vdn", "--env", "matrix-pr2"], "a reward of the whole team"
    yield trains("--seedz", "3"), "--seedz"
    yield trains("more"), "more"
    yield trains("--seeds"), "--seeds"
    yield trains("--hidden"), "hidden must be one or more widths"
    yield trains("--hidden", "0"), "hidden must be one or more widths"
    yield trains("--optimiser", "sgd"), "--optimiser"
    yield trains("--wandb", "maybe"), "--wandb"
    yield trains("--seeds", "0"), "seeds must be at least 1, not 0"

    # Learners of policies, of latents and from rollouts
    for name, entry in ALGORITHMS.items():
        if "rollout_length" in leaves(entry.algorithm):
            game = "private-cards" if name.startswith("bad") else "matrix-qtran"
            command = ["train", "--algo", name, "--env", game, "--rollout-length", "64"]
            yield (
                [*command, "--env-steps", "63"],
                "no update is due within 63 iterations of 1 environment(s), the first one comes after 63",
                "raise env_steps above 63, or lower rollout_length",
            )
            yield ["train", "--algo", name, "--env", "differential"], "the algorithm needs discrete actions"
    for name in ("maven", "fop", "maddpg-discrete"):
        yield ["train", "--algo", name, "--env", "differential"], "the algorithm needs discrete actions"
    for name in ("td3", "matd3"):
        yield ["train", "--algo", name, "--env", "two-step"], "the algorithm needs continuous actions"
    for name, game in itertools.product(("bad", "bad-particles"), ("matrix-qtran", "tiger")):
        yield (
            ["train", "--algo", name, "--env", game],
            "a public agent needs a game of two or more agents with known tables and public observations",
            "such as private-cards or two-agent-tiger: this one has no public observations",
        )
    for name, game in (("dvrl", "tiger"), ("bad-particles", "private-cards")):
        yield (
            ["train", "--algo", name, "--env", game, "--particles", "2000000000"],
            "would take",
            "of memory, and",
        )
    yield (
        ["train", "--algo", "bad-particles", "--env", "private-cards", "--particles", "0"],
        "particles must be at least 1, not 0",
    )
    yield (
        ["train", "--algo", "maven", "--env", "n-step-matrix", "--num-latents", "1"],
        "num_latents must be at least 2, not 1",
    )

    # Files
    for name in PAYOFFS:
        yield ["train", "--algo", "iql", "--payoff", f"@/payoffs/{name}"], f"payoff file @/payoffs/{name}"
    for path, said in {
        "@/nothing.json": NOT_THERE,
        "@/folder.json": "Is a directory",
        "@/file/x.json": "Not a directory",
        f"{LONG}.json": "File name too long",
        f"{BYTES}.json": NOT_THERE,
    }.items():
        yield ["train", "--algo", "iql", "--payoff", path], "cannot be read", said
    for name, (_, said) in SWEEPS.items():
        yield ["sweep", f"@/sweeps/{name}.yaml"], f"@/sweeps/{name}.yaml", said
    for path, said in {
        "@/nothing": NOT_THERE,
        "@": "Is a directory",
        LONG: "File name",
        BYTES: NOT_THERE,
    }.items():
        yield ["sweep", path], "cannot be read", said
    for name in RECORDS:
        yield ["play", "--run", f"@/records/{name}"], f"@/records/{name}/experiment.json holds no experiment"
        yield ["plot", f"@/records/{name}"], f"@/records/{name}/experiment.json holds no experiment"
        yield trains("--out", f"@/records/{name}"), f"@/records/{name}"
        yield (
            ["compare", "--from", f"@/records/{name}"],
            f"@/records/{name}/experiment.json holds no experiment",
        )

    # Folders
    for out, said in {
        "@/file": "File exists",
        "@/file/x": "Not a directory",
        "/proc/x": NOT_THERE,
        LONG: "File name too long",
    }.items():
        for command in (
            trains(),
            ["sweep", "@/sweep.yaml"],
            ["benchmark"],
            COMPARISON,
            ["qtran", "--figures", "table1", "--scale", "smoke"],
        ):
            yield [*command, "--out", out], "cannot be written", said
        yield ["plot", "@/run", "--out", f"{out}/curves.png"], "cannot be written", said
    for folder, said in {
        "@/file": "Not a directory",
        "@/nothing": NOT_THERE,
        LONG: "too long",
        BYTES: "No such",
    }.items():
        yield ["results_page", "--results", folder], "cannot be read", said
    yield ["results_page", "--results", "@/folder.json"], "holds no results"
    yield ["results_page", "results"], "results"

    # Playing
    yield ["play"], "--run is missing"
    yield ["play", "--run", "@/nothing"], "there is no @/nothing/experiment.json"
    yield ["play", "--run", "@/file"], "Not a directory"
    yield ["play", "--run", BYTES], r"there is no \udcff/experiment.json"
    yield ["play", "--run", "@/run", "--key=-1"], "key must be in [0, 4294967295], not -1"
    yield ["play", "--run", "@/run", "--episodes", "0"], "episodes must be at least 1, not 0"
    yield ["play", "--run", "@/run", "--seed", "x"], "--seed"
    for gif, said in {
        "@/folder.gif": "Is a directory",
        "@/nothing/x.gif": NOT_THERE,
        f"{LONG}.gif": "File name too long",
        "x.png": "must end in .gif",
        "gif": "must end in .gif",
    }.items():
        yield ["play", "--run", "@/run", "--gif", gif], said

    # Plots
    yield ["plot"], "give the folder of at least one run"
    yield ["plot", "@/run", "@/run/"], "the same folder is given twice"
    yield (
        ["plot", "@/run", "--metric", "wins"],
        "no metric 'wins' to plot: choose one of episode_return",
    )
    yield ["plot", "@/run", "--metric", ""], "no metric ''"
    yield ["plot", "@/run", "--out", "x.svg"], "must end in .png, .pdf or .csv"
    yield ["plot", "@/run", "--out", "@/folder.png"], "Is a directory"
    yield (
        ["plot", "@/run", "--labels", "a", "b"],
        "--labels needs 1 different name(s), one for each run, not 2 (a, b)",
    )
    yield ["plot", "@/run", "--labels", ""], "--labels must not be blank"
    yield ["plot", "@/run", "--smooth", "0"], "--smooth must be at least 1, not 0"
    yield ["plot", "@/nothing"], "there is no @/nothing/experiment.json"
    yield ["plot", BYTES], r"there is no \udcff/experiment.json"

    # Comparisons
    yield ["compare"], "give at least one id with --algos and one with --envs"
    yield [*COMPARISON, "--algos", "chess"], "unknown algorithm 'chess'"
    yield [*COMPARISON, "--envs", "chess"], "unknown environment 'chess'"
    yield [*COMPARISON, "--envs", "differential"], "no pair works: iql-tabular on differential: "
    yield [*COMPARISON, "--seeds", "0"], "the number of seeds must be at least 1, not 0"
    yield [*COMPARISON, "--env-steps", "0"], "env_steps must be at least 1, not 0"
    yield [*COMPARISON, "--scale", "huge"], "huge"
    yield [*COMPARISON, "--scale", "smoke", "--env-steps", "99"], "give either --scale or --env-steps"
    yield [*COMPARISON, "--from", "@/run"], "@/run holds a run at 0 of 30 environment steps: finish it first"
    yield [*COMPARISON, "--overrides", "@/sweep.yaml"], "'method' is not a part of it"
    for path in ("@/nothing", "@", LONG, BYTES):
        yield [*COMPARISON, "--overrides", path], "cannot be read"
    for path in ("@/nothing", "@/file", "@/folder.png", LONG, BYTES):
        yield ["compare", "--from", path], "there is no run in"

    # Sweeps and benchmarks
    for runs in ("0", "-1", "1" + "0" * 15):
        yield ["sweep", "@/sweep.yaml", f"--runs={runs}"], f"--runs must be from 1 to 10000, not {runs}"
    yield ["sweep", "@/sweep.yaml", "--seed=-1"], "--seed must be 0 or above, not -1"
    yield ["sweep"], "PATH"
    yield ["sweep", "@/sweep.yaml", "more"], "more"
    yield ["benchmark", "chess"], "chess"
    yield ["benchmark", "--env", "chess"], "unknown environment 'chess'"
    yield ["benchmark", "--env", "differential"], "the algorithm needs discrete actions"
    yield ["benchmark", "--algos", "chess"], "unknown algorithm 'chess'"
    yield ["benchmark", "--algos", "sac"], "the algorithm needs continuous actions"
    yield ["benchmark", "--algos"], "--seeds and --algos need at least one each"
    yield ["benchmark", "--seeds"], "--seeds and --algos need at least one each"
    yield ["benchmark", "--seeds", "0"], "seeds must be at least 1, not 0"
    for seconds in ("0", "-1", "nan", "inf"):
        yield ["benchmark", f"--seconds={seconds}"], "--seconds must be above 0 and finite"

    # Reproductions
    for name in REPRODUCTIONS:
        yield [name, "--scale", "huge"], "unknown scale 'huge': choose from smoke, quick, long, paper"
        yield [name, "--figures", "fig0"], "unknown figure 'fig0'"
        yield [name, "--figures"], "--figures needs ids"
        yield [name, "--seeds", "0"], "seeds must be at least 1, not 0"
        yield [name, "--seeds", "1000000000000"], "seeds must be at most 1048576, not 1000000000000"
        yield [name, "--seeds", "many"], "--seeds"
        yield [name, "--agains"], "--agains"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for name, content in PAYOFFS.items():
        write(folder / "payoffs" / name, content)
    for name, (content, _) in SWEEPS.items():
        write(folder / "sweeps" / f"{name}.yaml", content)
    for name, content in RECORDS.items():
        write(folder / "records" / name / "experiment.json", content)
    write(folder / "sweep.yaml", b"method: grid\nparameters: {algo: {value: iql}}")
    write(folder / "run" / "experiment.json", record())
    history = History()
    history.append(0, {"episode_return": np.zeros(2)})
    history.save(folder / "run" / "metrics.npz")
    write(folder / "file", b"")
    for name in ("folder.json", "folder.gif", "folder.png"):
        (folder / name).mkdir()
    return folder


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def nothing_runs(monkeypatch):
    """What is accepted fails at once instead of running."""

    def run(*_, **__):
        raise AssertionError("accepted")

    monkeypatch.setattr(program.Program, "initial_lanes", run)
    monkeypatch.setattr(script, "_make", run)
    monkeypatch.setattr(sweep, "find_problems", run)
    monkeypatch.setattr(benchmark, "matrix_product", run)
    learner = jax.eval_shape(RUN.bind().init, jax.random.key(0))

    def load(folder, *given):
        real = load_player(folder, *given) if folder.name != "run" else None
        return real or Player(RUN.algorithm, RUN.environment, learner.params, 0)

    load_player = play.load_player
    monkeypatch.setattr(play, "load_player", load)
    monkeypatch.setattr(Player, "returns", checked_returns)


def checked_returns(player, episodes=32, key=0, returns=Player.returns):
    """Nothing is played: only what is refused beforehand."""
    if (episodes, key) == (32, 0):
        return np.zeros(episodes)
    return returns(player, episodes, key)


def test_there_are_hundreds_of_them():
    commands = [tuple(command) for command, *_ in cases()]
    assert len(set(commands)) == len(commands) >= 200
    assert {command[0] for command in commands} == set(SCRIPTS)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        pytest.param(command, said, id=f"{index}-{command[0]}")
        for index, (command, *said) in enumerate(cases())
    ],
)
def test_bad_input(inputs, nothing_runs, tmp_path, monkeypatch, capsys, command, said):
    name, *flags = (part.replace("@", str(inputs)) for part in command)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *flags])
    before = files(inputs)
    with pytest.raises(SystemExit) as stop:
        cli.run(SCRIPTS[name].main)
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1, line
    for part in said:
        assert part.replace("@", str(inputs)) in line
    assert stop.value.code == cli.BAD_INPUT
    assert before.items() <= files(inputs).items() and not files(tmp_path)
