import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from baselines.probes import tables_of_states
from experiments import reproduce_qtran
from experiments.claims.qtran.state_value import CLAIMS, LEARNERS, WITHOUT, WORTH, private_bits, state_value
from jaxmarl_fac.game import GameSpec

PAYOFF = np.array(
    [
        [[8, -12], [-12, 0]],
        [[-12, 4], [0, -12]],
        [[-12, 0], [2, -12]],
        [[0, -12], [-12, 6]],
    ]
)


def test_the_game_of_private_bits():
    game = private_bits()
    np.testing.assert_array_equal(game.reward[:4], PAYOFF)
    np.testing.assert_array_equal(game.observation[:, :4], [[0, 0, 1, 1], [0, 1, 0, 1]])
    assert not game.fully_observable
    # The best payoffs are no sum of a number for each bit: V_jt is needed.
    assert WORTH[0, 0] + WORTH[1, 1] != WORTH[0, 1] + WORTH[1, 0]


def test_tables_of_all_first_states():
    game, algorithm = private_bits(), LEARNERS["qtran-base"]

    @jax.jit
    def work(game, key):
        return tables_of_states(algorithm, game, algorithm.bind(GameSpec.of(game)).init(key).params)

    # As in training, where the game's tables are traced.
    tables = jax.tree.map(np.asarray, work(jax.tree.map(jnp.asarray, game), jax.random.key(0)))
    utilities = tables["utilities"][:4]  # (4, 2, 2)
    assert tables["utilities"].shape == tables["q_jt"].shape == (5, 2, 2)
    # An agent cannot tell states apart in which its own bit is the same.
    np.testing.assert_array_equal(utilities[[0, 2], 0], utilities[[1, 3], 0])
    np.testing.assert_array_equal(utilities[[0, 1], 1], utilities[[2, 3], 1])
    np.testing.assert_allclose(
        tables["q_prime"][:4], utilities[:, 0, :, None] + utilities[:, 1, None, :], rtol=1e-5
    )
    assert (np.ptp(tables["v_jt"], axis=(1, 2)) == 0).all()


class MadeUp:
    """A workshop in which networks learn Q_jt and, but for the one without, V_jt by the equation."""

    scale = "quick"

    def seeds(self, **counts):
        return tuple(range(counts[self.scale]))

    def choose(self, **choices):
        return choices[self.scale]

    def train(self, name, experiment):
        seeds = len(experiment.seeds)
        bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        utilities = np.where(np.arange(2) == bits[..., None], 3.0, 0.0)  # (4, 2, 2)
        v = np.zeros(4) if name.endswith("without-V_jt") else PAYOFF.max((1, 2)) - 6.0
        last = {
            "q_jt": PAYOFF,
            "utilities": utilities,
            "v_jt": np.broadcast_to(v[:, None, None], (4, 2, 2)),
            "greedy_actions": bits,
        }
        history = SimpleNamespace(last={key: np.stack([value] * seeds) for key, value in last.items()})
        return SimpleNamespace(history=history)


def test_what_is_measured_of_made_up_networks():
    outcome = state_value(MadeUp())
    verdict, _ = CLAIMS[0].rule.judge(outcome.measured)
    assert verdict == "reproduced"
    assert outcome.ours["qtran-alt"]["largest distance of V_jt"].value == 0
    assert outcome.ours[WITHOUT]["largest distance of V_jt"].value == pytest.approx(4)  # 2 - 6


@pytest.mark.slow
def test_the_figure_at_smoke_scale(tmp_path):
    flags = ["--figures", "state_value", "--scale", "smoke", "--out", str(tmp_path)]
    assert reproduce_qtran.main(flags) == 0
    record = json.loads((tmp_path / "state_value.json").read_text(encoding="utf-8"))
    assert record["ours"].keys() == LEARNERS.keys()
    assert (tmp_path / "state_value.png").read_bytes().startswith(b"\x89PNG")
