import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.team_pomdp import CARDS_PAYOFF, hidden_chain, private_cards, tiger, two_agent_tiger
from jaxmarl_fac.soft import belief
from jaxmarl_fac.soft.belief import UNSEEN, Chain
from tests.engine.soft.games import few, seeds
from tests.reference.team_pomdp import forward, partial_policy_value, tiger_value, value_of_guessing

pytestmark = pytest.mark.usefixtures("float64")

EXACT = {"atol": 1e-6}
CARDS = np.asarray(CARDS_PAYOFF, float)
EVEN = np.full((2, 2), 0.25)
#: A latent of two values with even chances, which shows what was seen with chance .7 or .1.
JOINT = np.array([0.35, 0.05])


def weather():
    """The chain that shows 1, 1, 0."""
    model = hidden_chain().hidden_model()
    return belief.chain_of(model, jnp.zeros((2, 1), int), jnp.zeros(3, int), jnp.array([[1], [1], [0]]))


def random_chain(seed, steps=4, states=3):
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(states), (steps - 1, states))
    return Chain(*map(jnp.asarray, (rng.dirichlet(np.ones(states)), rows, rng.uniform(size=(steps, states)))))


# Filters


def test_the_filter_of_a_hidden_chain():
    found = belief.bayes_filter(weather())
    np.testing.assert_allclose(
        found.belief, [[0.25, 0.75], [0.166667, 0.833333], [0.764368, 0.235632]], **EXACT
    )
    np.testing.assert_allclose(found.log_evidence, np.log([0.6, 0.675, 0.29]), **EXACT)
    assert float(found.log_evidence.sum()) == pytest.approx(-2.141743, abs=1e-6)


@few
@given(seeds, st.integers(1, 5))
def test_filters_are_sums_over_all_paths(seed, steps):
    chain = random_chain(seed, steps)
    found = belief.bayes_filter(chain)
    beliefs, total = forward(*map(np.asarray, chain))
    np.testing.assert_allclose(found.belief, beliefs, atol=1e-12)
    np.testing.assert_allclose(found.log_evidence.sum(), total, atol=1e-12)


@pytest.mark.parametrize(
    ("heard", "left"), [([1], 0.85), ([1, 1], 0.969799), ([1, 1, 2], 0.85), ([1, 2], 0.5), ([2, 2], 0.030201)]
)
def test_the_belief_of_the_tiger(heard, left):
    signs = jnp.array([0, *heard])[:, None]
    listens = jnp.zeros((len(heard), 1), int)
    found = belief.bayes_filter(
        belief.chain_of(tiger().hidden_model(), listens, jnp.zeros(len(heard) + 1, int), signs)
    )
    assert float(found.belief[-1, 0]) == pytest.approx(left, abs=1e-6)


def test_a_door_that_is_opened_makes_the_belief_even():
    model = tiger().hidden_model()
    signs = jnp.array([[0], [1], [1], [1]])
    chain = belief.chain_of(model, jnp.array([[0], [0], [1]]), jnp.zeros(4, int), signs)
    np.testing.assert_allclose(belief.bayes_filter(chain).belief[:, 0], [0.5, 0.85, 0.969799, 0.5], **EXACT)


def test_two_ears_hear_more_than_one():
    """By both: .85^2 / (.85^2 + .15^2); by one's own only: .85; by nothing: even."""
    model = two_agent_tiger().hidden_model()
    filtered = jax.jit(
        lambda private: (
            belief.bayes_filter(
                belief.chain_of(model, jnp.zeros((1, 2), int), jnp.array([0, 1]), private)
            ).belief
        )
    )
    for private, left in (([1, 1], 0.969799), ([1, UNSEEN], 0.85), ([1, 2], 0.5), ([UNSEEN] * 2, 0.5)):
        found = filtered(jnp.array([[0, 0], private]))
        assert float(found[-1, 0]) == pytest.approx(left, abs=1e-6)


def test_an_impossible_observation():
    chain = Chain(jnp.array([1.0, 0.0]), jnp.eye(2)[None], jnp.array([[1.0, 0.5], [0.0, 1.0]]))
    found = belief.bayes_filter(chain)
    np.testing.assert_array_equal(found.belief, [[1, 0], [1, 0]])
    np.testing.assert_array_equal(found.log_evidence, [0, -np.inf])


def test_filters_are_mapped_over_chains():
    chains = [random_chain(seed) for seed in range(3)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *chains)
    found = jax.jit(jax.vmap(belief.bayes_filter))(together)
    for index, chain in enumerate(chains):
        np.testing.assert_allclose(found.belief[index], belief.bayes_filter(chain).belief, rtol=1e-12)


def test_bad_chains(bad_input):
    good = random_chain(0)
    with bad_input("transition does not sum to 1: row (1, 0)"):
        belief.bayes_filter(good._replace(transition=good.transition.at[1, 0].mul(0.5)))
    with bad_input("prior has a negative probability"):
        belief.bayes_filter(good._replace(prior=jnp.array([1.5, -0.5, 0.0])))
    with bad_input("does not fit together: give (S,), (T - 1, S, S) and (T, S)"):
        belief.bayes_filter(good._replace(transition=good.transition[0]))


# Paths and bounds


@few
@given(seeds)
def test_paths_drawn_from_the_smoothing_proposal_all_weigh_the_evidence(seed):
    chain = random_chain(seed, steps=3)
    proposal = belief.smoothing_proposal(chain)
    np.testing.assert_allclose(proposal.sum(-1), 1, rtol=1e-12)
    paths = belief.enumerate_paths(chain, proposal)
    _, total = forward(*map(np.asarray, chain))
    np.testing.assert_allclose(paths.log_weight, total, rtol=1e-9)
    np.testing.assert_allclose(paths.proposal.sum(), 1, rtol=1e-12)
    bound = belief.iwae_bound(paths.log_weight, paths.proposal, 1)
    np.testing.assert_allclose(bound, total, rtol=1e-9)


def test_paths_are_weighed_one_by_one():
    chain = weather()
    paths = belief.enumerate_paths(chain, jnp.full((3, 2, 2), 0.5))
    prior, transition, likelihood = map(np.asarray, chain)
    for (a, b, c), weight, chance in zip(*map(np.asarray, paths), strict=True):
        joint = prior[a] * transition[0, a, b] * transition[1, b, c]
        joint *= likelihood[0, a] * likelihood[1, b] * likelihood[2, c]
        assert chance == pytest.approx(1 / 8) and weight == pytest.approx(math.log(joint * 8))


@pytest.mark.parametrize(
    ("particles", "bound"), [(1, -1.329630), (2, -1.122960), (3, -1.043827), (5, -0.984591)]
)
def test_bounds_of_a_binary_latent(particles, bound):
    proposal = jnp.array([0.5, 0.5])
    found = belief.iwae_bound(jnp.log(JOINT / proposal), proposal, particles)
    assert float(found) == pytest.approx(bound, abs=1e-6)
    assert float(found) < math.log(0.4)
    # Every K-tuple by itself.
    weights = [np.mean(JOINT[list(draw)] / 0.5) for draw in itertools.product(range(2), repeat=particles)]
    assert float(found) == pytest.approx(np.log(weights).mean(), abs=1e-12)


@few
@given(seeds)
def test_bounds_rise_with_the_particles_and_stay_below_the_evidence(seed):
    rng = np.random.default_rng(seed)
    joint, proposal = rng.uniform(size=3), rng.dirichlet(np.ones(3))
    bounds = [
        float(belief.iwae_bound(jnp.log(joint / proposal), jnp.asarray(proposal), k)) for k in range(1, 6)
    ]
    assert (np.diff([*bounds, np.log(joint.sum())]) > -1e-12).all()


def test_latents_that_are_never_drawn_do_not_count():
    found = belief.iwae_bound(jnp.array([0.3, -jnp.inf, jnp.nan]), jnp.array([1.0, 0.0, 0.0]), 2)
    assert float(found) == pytest.approx(0.3)


def test_no_particles(bad_input):
    with bad_input("particles must be at least 1, not 0"):
        belief.iwae_bound(jnp.zeros(2), jnp.full(2, 0.5), 0)
    with bad_input("all draws of 40 of 90 latents would take"):
        belief.iwae_bound(jnp.zeros(90), jnp.full(90, 1 / 90), 40)
    with bad_input("paths of a chain would take"):
        belief.enumerate_paths(random_chain(0, steps=40), jnp.ones((40, 3, 3)) / 3)


# Partial policies and public beliefs


@pytest.mark.parametrize(
    ("choices", "value"),
    [
        ((3, 1), 10),
        ((1, 2), 9),
        ((2, 1), 9),
        ((3, 2), 9),
        ((2, 2), 8),
        ((1, 3), 7.5),
        ((2, 3), 6.5),
        ((1, 1), 5),
        ((3, 3), 5),
    ],
)
def test_what_partial_policies_of_the_card_game_earn(choices, value):
    values = belief.partial_policy_values(jnp.asarray(CARDS), jnp.asarray(EVEN))
    own = tuple(action - 1 for action in choices)
    assert float(values[own]) == pytest.approx(value, abs=1e-6)
    assert partial_policy_value(CARDS, own) == pytest.approx(value)
    assert float(values.max()) == 10 and int((values == 10).sum()) == 1


@few
@given(seeds)
def test_a_stochastic_partial_policy_earns_no_more_than_the_best_deterministic_one(seed):
    rng = np.random.default_rng(seed)
    payoff, chances = rng.normal(size=(2, 2, 3, 3)), rng.dirichlet(np.ones(4)).reshape(2, 2)
    policy = rng.dirichlet(np.ones(3), 2)
    value = belief.partial_policy_value(*map(jnp.asarray, (payoff, chances, policy)))
    by_hand = sum(
        max(sum(chances[c1, c2] * policy[c1, u] * payoff[c1, c2, u, v] for c1 in range(2)) for v in range(3))
        for c2 in range(2)
        for u in range(3)
    )
    assert float(value) == pytest.approx(by_hand, abs=1e-12)
    assert value <= belief.partial_policy_values(jnp.asarray(payoff), jnp.asarray(chances)).max() + 1e-12


def test_public_beliefs():
    even, soft = jnp.array([0.5, 0.5]), jnp.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    after = [float(belief.public_belief(even, soft, jnp.int32(action))[0][0]) for action in range(3)]
    np.testing.assert_allclose(after, [0.875, 0.5, 0.125], **EXACT)
    tells = belief.deterministic([2, 0], 3)
    for action, told, chance in ((0, [0, 1], 0.5), (2, [1, 0], 0.5), (1, [0.5, 0.5], 0)):
        found, evidence = belief.public_belief(even, tells, jnp.int32(action))
        np.testing.assert_allclose(found, told, atol=1e-15)
        assert float(evidence) == chance  # an action that it never takes leaves the belief
    joint, _ = belief.public_belief(jnp.asarray(EVEN), soft, jnp.int32(0))
    np.testing.assert_allclose(joint, [[0.4375, 0.4375], [0.0625, 0.0625]], **EXACT)  # of c_2 nothing


def test_the_public_chain_of_the_card_game_is_the_public_belief():
    model = private_cards().hidden_model()
    soft = jnp.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    policies = (soft[None], jnp.ones((1, 2, 3)))
    for action, first in enumerate((0.875, 0.5, 0.125)):
        chain = belief.public_chain_of(model, policies, jnp.array([[action, 0]]), jnp.array([0]))
        found = belief.bayes_filter(chain)
        cards = found.belief[-1].reshape(17, 2, 2)
        np.testing.assert_allclose(cards.sum((0, 2)), [first, 1 - first], **EXACT)
        np.testing.assert_allclose(np.exp(found.log_evidence), [0.4, 0.2, 0.4][action], **EXACT)
        np.testing.assert_allclose(cards.sum((0, 1)), [0.5, 0.5], **EXACT)


def test_the_public_chain_of_two_tigers_is_bayes_rule_by_enumeration():
    """Both listen; each opens the other door with chance .3 if it heard a side; they listen again."""
    model = two_agent_tiger().hidden_model()
    act = np.zeros((3, 3, 3))  # steps, heard, actions
    act[:] = [1.0, 0, 0]
    act[1, 1], act[1, 2] = [0.7, 0, 0.3], [0.7, 0.3, 0]
    actions, public = np.array([[0, 0], [0, 2], [0, 0]]), np.array([0, 1, 1 + 2])
    chain = belief.public_chain_of(model, (jnp.asarray(act), jnp.asarray(act)), actions, public)
    found = belief.bayes_filter(chain)
    # Agent 2 opened the right door: it had heard left. Agent 1's listening says nothing of what it heard.
    np.testing.assert_allclose(found.belief[1].reshape(2, 3, 3).sum((1, 2)), [0.85, 0.15], **EXACT)
    np.testing.assert_allclose(found.belief[2].reshape(2, 9).sum(1), [0.5, 0.5], **EXACT)  # placed anew
    np.testing.assert_allclose(np.exp(found.log_evidence), [1, 0.7 * 0.5 * 0.3, 1], **EXACT)


# Values


def test_the_value_of_the_tiger_problem():
    """Listen twice, and open where both times the other side was heard: 2.72 in three steps."""
    model = tiger().hidden_model()
    for horizon, value in ((1, -1), (2, -2), (3, -2 + 0.745 * (10 - 110 * 0.15**2 / 0.745) - 0.255)):
        assert float(belief.belief_value(model, horizon)) == pytest.approx(value, abs=1e-9)
        assert tiger_value(0.5, horizon) == pytest.approx(value, abs=1e-9)
    assert float(belief.belief_value(model, 4)) == pytest.approx(tiger_value(0.5, 4), abs=1e-9)


def test_the_value_of_guessing_the_state_of_a_chain():
    model = hidden_chain().hidden_model()
    prior, transition = np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.2, 0.8]])
    signs = np.array([[0.7, 0.3], [0.1, 0.9]])
    assert float(belief.belief_value(model, 1)) == pytest.approx(0.8)
    for horizon in (2, 4):
        value = value_of_guessing(prior, transition, signs, horizon)
        assert float(belief.belief_value(model, horizon)) == pytest.approx(value, abs=1e-9)


def test_values_by_merged_beliefs_are_those_of_all_histories():
    for model in (tiger().hidden_model(), hidden_chain().hidden_model()):
        for horizon in (1, 2, 4):
            value = float(belief.belief_value(model, horizon))
            assert belief.merged_belief_value(model, horizon) == pytest.approx(value, abs=1e-9)
    assert belief.merged_belief_value(tiger().hidden_model(), 8) == pytest.approx(
        tiger_value(0.5, 8), abs=1e-9
    )


def test_the_value_of_the_card_game():
    assert float(belief.team_value(private_cards().hidden_model(), 2)) == pytest.approx(10, abs=1e-9)


@functools.cache
def of_two_tigers(public_actions, horizon):
    model = two_agent_tiger(public_actions=public_actions).hidden_model()
    return float(belief.team_value(model, horizon))


@pytest.mark.parametrize(("horizon", "value"), [(1, -2), (2, -4), (3, 5.190812)])
def test_the_published_values_of_the_two_agent_tiger(horizon, value):
    """Nair et al. (2003): -4 in two steps, 5.19 in three; to see actions does no harm."""
    assert of_two_tigers(False, horizon) == pytest.approx(value, abs=1e-6)
    if horizon < 3:
        assert of_two_tigers(True, horizon) == pytest.approx(value, abs=1e-6)


def test_values_need_the_right_game(bad_input):
    with bad_input("the game has 2 agent(s): give one of 1"):
        belief.belief_value(private_cards().hidden_model(), 2)
    with bad_input("the game has 2 agent(s): give one of 1"):
        belief.merged_belief_value(private_cards().hidden_model(), 2)
    with bad_input("the game has 1 agent(s): give one of 2"):
        belief.team_value(tiger().hidden_model(), 2)
    with bad_input("horizon must be at least 1, not 0"):
        belief.team_value(private_cards().hidden_model(), 0)
    with bad_input("the beliefs of 40 steps would take"):
        belief.belief_value(tiger().hidden_model(), 40)
    with bad_input("the prescriptions for 512 private histories would take"):
        belief.team_value(two_agent_tiger().hidden_model(), 10)
