"""QPLEX, matrix games: learned joint values beside the exact best fits."""

from typing import Any

import jax
import numpy as np

from experiments.claims.qplex.games import ACTIONS, GAMES, UNPUBLISHED, summary, table_of, train
from jaxmarl_fac.exact.projections import MonotoneFit, additive_fit, monotone_fit
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.curves import BETTER_THAN_RANDOM, gain_over_random
from jaxmarl_fac.report.figures import annotated_matrix, panels, utility_labels
from jaxmarl_fac.report.verdicts import Part, Rule
from jaxmarl_fac.statistics import bootstrap_interval

COMPARED = ("matrix-qtran", "matrix-qplex")


def _distance(name: str, game: str) -> str:
    return f"largest distance of {name}'s mean values from the exact additive fit on {GAMES[game][0]}"


def _least_sse(game: str) -> str:
    return (
        "least sum of squared errors of any seed of qmix, as a share of the exact monotone fit's, on "
        f"{GAMES[game][0]}"
    )


def _error(game: str) -> str:
    return f"median over seeds of qtran-base's largest error on {GAMES[game][0]}"


def _rule_of(game: str) -> tuple[Part, ...]:
    return (
        *(Part(_distance(name, game), at_most=0.25) for name in ("vdn", "qatten")),
        # Up to what minibatches of noisy samples leave, no monotone table can be nearer.
        Part(_least_sse(game), at_least=0.98),
        Part(_error(game), below=0.1),
    )


def tables(workshop: Workshop) -> Outcome:
    """Learned joint values beside the exact best additive and monotone fits."""
    names = ("vdn", "qatten", "qmix", "qplex", "qtran-base", "cw-qmix", "ow-qmix", "remix")
    histories = {name: train(workshop, name) for name in names}
    ours: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    fits: dict[str, tuple[np.ndarray, MonotoneFit]] = {}
    for game in COMPARED:
        payoff = GAMES[game][1]
        with jax.enable_x64(True):
            additive = np.asarray(additive_fit(payoff).q_tot)
        monotone = monotone_fit(payoff)
        fits[game] = additive, monotone
        ours[game] = {
            "exact_additive_fit": {"q_tot": additive, "sse": np.square(additive - payoff).sum()},
            "exact_monotone_fit": {"q_tot": monotone.q_tot, "sse": monotone.sse},
        }
        for name in names:
            last = histories[name][game].last
            learned = last[table_of(name)]  # (seeds, 3, 3)
            errors = np.square(learned - payoff).sum((1, 2))
            ours[game][name] = {
                **summary(histories[name][game], payoff),
                "table": np.mean(learned, 0),
                "sse": bootstrap_interval(errors),
            }
            if name in ("vdn", "qatten"):
                distance = float(np.abs(np.mean(learned, 0) - additive).max())
                ours[game][name]["distance_from_additive_fit"] = distance
                measured[_distance(name, game)] = distance
            if name == "qmix":
                ours[game][name]["least_sse"] = errors.min()
                measured[_least_sse(game)] = errors.min() / monotone.sse
            if name == "qtran-base":
                measured[_error(game)] = np.median(np.abs(learned - payoff).max((1, 2)))
    at_end = [history["matrix-qplex"].last["episode_return"] for history in histories.values()]
    measured |= gain_over_random(at_end, GAMES["matrix-qplex"][1].mean())

    width = (2 + len(names)) // 2
    figure, axes = panels(2 * len(COMPARED), width, (2.9, 2.4))
    seeds = len(histories["vdn"]["matrix-qtran"].last["episode_return"])
    steps = histories["vdn"]["matrix-qtran"].last_env_steps
    figure.suptitle(
        f"Learned joint values after {steps:,} steps with ε = 1: means over {seeds} seeds; framed: the most "
        "frequent greedy joint action"
    )
    for places, game in zip(axes.reshape(len(COMPARED), -1), COMPARED, strict=True):
        additive, monotone = fits[game]
        for place, values, title in (
            (places[0], additive, "exact additive fit"),
            (places[1], monotone.q_tot, "exact monotone fit"),
        ):
            annotated_matrix(place, values, ACTIONS, ACTIONS, title, value_format="{:.1f}", limits=(-12, 8))
        places[0].set_ylabel(GAMES[game][0])
        for place, name in zip(places[2:], names, strict=True):
            last = histories[name][game].last
            rows, columns = (utility_labels(q, ACTIONS, "{:.1f}") for q in np.mean(last["utilities"], 0))
            joints, counts = np.unique(last["greedy_actions"], axis=0, return_counts=True)
            greedy = joints[np.argmax(counts)]
            annotated_matrix(
                place,
                ours[game][name]["table"],
                rows,
                columns,
                f"{name}, SSE {ours[game][name]['sse'].value:.0f}",
                (int(greedy[0]), int(greedy[1])),
                value_format="{:.1f}",
                limits=(-12, 8),
            )
    qmix = {game: ours[game]["qmix"] for game in COMPARED}
    why = (
        "Sums of squared errors, IQM over seeds: "
        + "; ".join(
            f"{GAMES[game][0]}: exact additive {ours[game]['exact_additive_fit']['sse']:.0f}, exact monotone "
            f"{ours[game]['exact_monotone_fit']['sse']:.0f}, "
            + ", ".join(f"{name} {ours[game][name]['sse'].value:.0f}" for name in names)
            for game in COMPARED
        )
        + f". QMIX's nearest seeds have {qmix['matrix-qtran']['least_sse']:.0f} and "
        f"{qmix['matrix-qplex']['least_sse']:.0f}."
    )
    return Outcome(figure, UNPUBLISHED, ours, measured, why)


CLAIMS = (
    Claim(
        "tables",
        "QPLEX, learned joint values; exact fits by `jaxmarl_fac.exact`",
        "VDN and Qatten learn the best additive fit, QMIX no better than the best monotone one, QTRAN the "
        "payoff.",
        Rule((*_rule_of("matrix-qtran"), *_rule_of("matrix-qplex")), learned=BETTER_THAN_RANDOM),
        {"smoke": "shares curves' runs", "quick": "shares curves' runs", "paper": "shares curves' runs"},
        tables,
    ),
)
