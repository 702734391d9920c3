"""The games solved exactly: filters, public beliefs, what partial policies and whole games are worth."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.team_pomdp import CARDS_PAYOFF, two_agent_tiger
from experiments.claims.belief.chains import CARDS, SOFT_POLICY, TIGER, WEATHER, cards, tiger, weather
from jaxmarl_fac.report.claims import Claim, Outcome, Workshop
from jaxmarl_fac.report.figures import annotated_matrix, bar_counts, panels
from jaxmarl_fac.report.styles import PALETTE
from jaxmarl_fac.report.verdicts import TOLERANCE, Part, Rule
from jaxmarl_fac.soft import belief

FILTERS = "largest error of filtered beliefs"
EVIDENCE = "error of the log-likelihood of the hidden chain"
PUBLIC = "largest error of public beliefs in the card game"
POLICIES = "largest error of the values of player 1's nine partial policies"
UNIQUE = "action 3 for card 1 and 1 for card 2 is the only optimum of the card game"
TEAM = "largest error of the values of the card game and of the two-agent tiger"

#: Worked numbers: beliefs in the first of two states.
BELIEFS = {WEATHER: (0.25, 1 / 6, 0.764368), TIGER: (0.5, 0.85, 0.969799, 0.85)}
LOG_LIKELIHOOD = -2.141743
#: Of card 1, after player 1's actions 1, 2 and 3 under `SOFT_POLICY`.
PUBLIC_BELIEFS = (0.875, 0.5, 0.125)
#: By player 1's action for card 1 (rows) and for card 2.
POLICY_VALUES = ((5.0, 9.0, 7.5), (9.0, 8.0, 6.5), (10.0, 9.0, 5.0))
#: In so many steps, undiscounted: the card game; the two-agent tiger (Nair et al., 2003).
TEAM_VALUES = {(CARDS, 2): 10.0, ("two-agent tiger", 1): -2.0, ("two-agent tiger", 2): -4.0}
THREE_STEPS = ("two-agent tiger", 3), 5.190812


def exact(workshop: Workshop) -> Outcome:
    """Every worked number of the four games, in float64."""
    wanted = TEAM_VALUES | workshop.choose(smoke={}, quick=dict([THREE_STEPS]), paper=dict([THREE_STEPS]))
    with jax.enable_x64(True):
        filtered = {
            name: belief.bayes_filter(game.chain) for name, game in ((WEATHER, weather()), (TIGER, tiger()))
        }
        beliefs = {name: np.asarray(found.belief)[:, 0] for name, found in filtered.items()}
        evidence = float(filtered[WEATHER].log_evidence.sum())
        even, soft = jnp.full(2, 0.5), jnp.asarray(SOFT_POLICY)
        public = [float(belief.public_belief(even, soft, jnp.int32(u))[0][0]) for u in range(3)]
        game = cards()
        filter_of_cards = np.asarray(belief.bayes_filter(game.chain).belief[-1]) @ game.asked
        values = np.asarray(
            belief.partial_policy_values(jnp.asarray(CARDS_PAYOFF, float), jnp.full((2, 2), 0.25))
        )
        blind = two_agent_tiger(public_actions=False).hidden_model()
        model = envs.make("private-cards").hidden_model()  # type: ignore[attr-defined]
        worth = {key: float(belief.team_value(model if key[0] == CARDS else blind, key[1])) for key in wanted}

    errors = {name: np.abs(found - BELIEFS[name]).max() for name, found in beliefs.items()}
    public_error = np.abs(
        [*(np.array(public) - PUBLIC_BELIEFS), filter_of_cards[0] - PUBLIC_BELIEFS[0]]
    ).max()
    measured = {
        FILTERS: max(errors.values()),
        EVIDENCE: abs(evidence - LOG_LIKELIHOOD),
        PUBLIC: public_error,
        POLICIES: np.abs(values - POLICY_VALUES).max(),
        UNIQUE: bool(values[2, 0] == values.max() and (values == values.max()).sum() == 1),
        TEAM: max(abs(worth[key] - value) for key, value in wanted.items()),
    }
    ours: dict[str, Any] = {
        "beliefs": beliefs,
        "log-likelihood": evidence,
        "public beliefs": public,
        "partial policies": values,
        "values of teams": {f"{name}, {steps} step(s)": value for (name, steps), value in worth.items()},
    }
    paper = {"best partial policy": "3 for card 1, 1 for card 2", "its value": 10}
    why = (
        f"The best of player 1's partial policies earns {values.max():g}, three others 9, the safe one "
        f"{values[1, 1]:g} and its mirror image {values[0, 2]:g}; telling nothing earns {values[0, 0]:g}."
    )
    return Outcome(_draw(beliefs, public, values), paper, ours, measured, why)


def _draw(beliefs: Mapping[str, np.ndarray], public: list[float], values: np.ndarray) -> Any:
    figure, axes = panels(1, 3, (4.4, 3.4), "Games with hidden state, solved exactly (float64)")
    names = ("1", "2", "3")
    annotated_matrix(
        axes[0, 0], values, [f"card 1: {u}" for u in names], [f"card 2: {u}" for u in names],
        "player 1's partial policies,\nplayer 2 replies best", highlight=(2, 0), value_format="{:g}",
    )  # fmt: skip
    bar_counts(
        axes[0, 1],
        [f"action {u}" for u in names],
        {"belief": public},
        ylabel="public belief of card 1",
        title="after player 1's action,\nby a stochastic partial policy",
    )
    for colour, (name, found) in zip(PALETTE, beliefs.items(), strict=False):
        axes[0, 2].plot(range(len(found)), found, "o-", color=colour, label=name)
    axes[0, 2].set(
        xlabel="step",
        xticks=range(max(map(len, beliefs.values()))),
        ylabel="belief in the first state",
        title="Bayes filters",
        ylim=(0, 1.05),
    )
    axes[0, 2].legend(frameon=False, fontsize="small")
    axes[0, 2].grid(alpha=0.25)
    return figure


CLAIMS = (
    Claim(
        "exact",
        "Foerster et al. (2019), the matrix game; thesis, section 5.1",
        "A public agent that knows the belief finds the optimum of 10, where both players tell and listen.",
        Rule(
            (
                *(Part(what, at_most=TOLERANCE) for what in (FILTERS, EVIDENCE, PUBLIC, POLICIES, TEAM)),
                Part(UNIQUE),
            ),
            given="Against worked numbers and published values, in float64: ",
        ),
        {"smoke": "10 s", "quick": "30 s", "paper": "30 s"},
        exact,
    ),
)
