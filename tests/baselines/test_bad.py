"""Public agents: their beliefs, their gradient by enumeration, and what they learn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import baselines
import envs
from baselines.bad import ExactBelief, Told
from baselines.bad_particles import ParticleBelief
from baselines.probes import value_by_starts
from envs.team_pomdp import CARDS_PAYOFF, POMDPDraws, team_pomdp, two_agent_tiger
from jaxmarl_fac.experience import Trajectory
from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.loop import train
from jaxmarl_fac.soft import belief
from tests.baselines.learners import randomised
from tests.helpers import but_slow, clock_at

CARDS = envs.make("private-cards")
SPEC = GameSpec.of(CARDS)
PAYOFF = np.asarray(CARDS_PAYOFF, float)
BOTH = ("bad", "bad-particles")


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def play(env, learner, params, key, steps):
    """Steps by exploring, across episodes: rows of (observation, memory before, decision, time step)."""
    act = jax.jit(lambda carry, observation, key: learner.act(params, carry, observation, clock_at(), key))
    state, timestep = env.reset(key)
    carry = learner.begin(params, timestep.observation, key)
    rows = []
    for t in range(steps):
        observation, key_t = env.observe(state), jax.random.fold_in(key, t)
        decision = act(carry, observation, key_t)
        after, timestep = env.step(state, decision.actions)
        rows.append((observation, carry, decision, timestep))
        state, carry = after, decision.carry
        if timestep.last():
            state, _ = env.reset(key_t)
            carry = learner.begin(params, env.observe(state), key_t)
    return rows, carry


# The exact belief


def test_the_memory_is_the_exact_public_belief():
    """Of two agents and a tiger, whose private observations change: as the public chain is filtered."""
    env = two_agent_tiger(time_limit=4)
    learner = baselines.make("bad", hidden=(4,)).bind(GameSpec.of(env))
    params = randomised(learner.init(jax.random.key(0)).params, 1)
    rows, last = play(env, learner, params, jax.random.key(3), 3)
    choices = np.stack([decision.extras.choices for _, _, decision, _ in rows])  # (T, n, O)
    policies = tuple(jnp.asarray(np.eye(3)[choices[:, agent]]) for agent in range(2))
    actions = jnp.stack([decision.actions for _, _, decision, _ in rows])
    public = jnp.stack([jnp.argmax(observation.public_view) for observation, *_ in rows])
    chain = belief.public_chain_of(env.hidden_model(), policies, actions, public)
    found = belief.bayes_filter(chain).belief[-1].reshape(2, 9).sum(1)
    cell = tuple(np.asarray(actions[-1]))
    expected = np.asarray(found) @ np.asarray(env.transition)[(slice(None), *cell)]
    np.testing.assert_allclose(last.belief.sum((1, 2)), expected, atol=1e-5)
    for observation, _, decision, _ in rows:  # everybody looks its own observation up
        own = [decision.extras.choices[agent, observation.private[agent]] for agent in range(2)]
        assert decision.actions.tolist() == [int(action) for action in own]


def test_probabilistic_partial_policies():
    """Of three actions, one of which is not there, with a tremble of .2."""
    agent = baselines.make("bad", tremble=0.2)
    masks = jnp.array([[[True, True, False]], [[True, True, True]]])
    found = agent.policies(jnp.array([[1], [0]]), masks)
    np.testing.assert_allclose(found, [[[0.1, 0.9, 0]], [[0.8 + 0.2 / 3, 0.2 / 3, 0.2 / 3]]], atol=1e-6)


# The gradient, against enumeration


def public_features(b, public):
    """What the public agent sees of the card game, given the belief `(17, 2, 2)`."""
    return jnp.concatenate([public, b.sum((0, 2)), b.sum((0, 1)), b.sum((1, 2))])


def of_cards(algorithm, params):
    """Log-policies of player 1 `(2, 3)`, and of player 2 `(9, 3, 2, 3)` by player 1's choices and action."""
    module, model = algorithm.network(SPEC), CARDS.hidden_model()
    start = belief.public_update(model.first_public, belief.public_start(model), 0)
    logits, _ = module.apply(params, public_features(start, jnp.eye(4)[0]))
    idle, everything = jnp.zeros((2, 3)).at[:, 0].set(1), jnp.ones((1, 2, 3), bool)

    def reply(own, u):
        policy = algorithm.policies(own[None], everything)[0]
        moved = belief.public_move(model, start, (policy, idle), jnp.stack([u, 0]))
        told = belief.public_update(model.public[u, 0], moved, 1 + u)
        return module.apply(params, public_features(told, jnp.eye(4)[1 + u]))[0][1]

    own, u = jnp.indices((9, 3)).reshape(2, -1)
    replies = jax.vmap(reply)(jnp.stack([own // 3, own % 3], axis=-1), u)
    return jax.nn.log_softmax(logits[0]), jax.nn.log_softmax(replies).reshape(9, 3, 2, 3)


#: All that can happen: the deal, both players' partial policies, and what they do.
OUTCOMES = np.array(
    [
        (c1, c2, *own, u, *reply, v)
        for c1, c2, u, v in itertools.product(range(2), range(2), range(3), range(3))
        for own, reply in itertools.product(itertools.product(range(3), repeat=2), repeat=2)
    ]
)


def chances(algorithm, params):
    """Of all outcomes, `(2916,)`."""
    c1, c2, a, b, u, d, e, v = OUTCOMES.T
    first, replies = of_cards(algorithm, params)
    by_reply = replies[3 * a + b, u]  # (X, card, action)
    rows, everything = np.arange(len(OUTCOMES)), jnp.ones((len(OUTCOMES), 1, 3), bool)
    told = first[0, a] + first[1, b] + by_reply[rows, 0, d] + by_reply[rows, 1, e]

    def follows(choice, action):
        return algorithm.policies(choice[:, None], everything)[rows, 0, action]

    return jnp.exp(told) / 4 * follows(np.where(c1, b, a), u) * follows(np.where(c2, e, d), v)


@pytest.mark.parametrize("tremble", but_slow([0.0, 0.3], {0.3}))
def test_the_gradient_is_that_of_the_expected_return(tremble):
    """Its mean over all outcomes, exactly. The value function says 5 everywhere, which leaves the mean."""
    algorithm = baselines.make(
        "bad", hidden=(3,), tremble=tremble, value_coefficient=0.0, entropy_coefficient=0.0, entropy_end=0.0
    )
    learner = algorithm.bind(SPEC)
    params = randomised(learner.init(jax.random.key(0)).params, 2, scale=0.4)
    params["params"]["value"] = jax.tree.map(  # biases are vectors
        lambda leaf: jnp.full_like(leaf, 5.0 * (leaf.ndim == 1)), params["params"]["value"]
    )
    c1, c2, *_, u, _, _, v = OUTCOMES.T
    reward = jnp.asarray(PAYOFF[c1, c2, u, v], jnp.float32)

    def value(params):
        weights = chances(algorithm, params)
        return weights @ reward, weights

    exact, weights = jax.jit(jax.grad(value, has_aux=True))(params)
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-5)

    def gradient(outcome):
        c1, c2, a, b, u, d, e, v = outcome
        draws = POMDPDraws((2 * c1 + c2 + 0.5) / 4, jnp.float32(0.5), jnp.full((2,), 0.5))
        state, timestep = CARDS.begin(jax.random.key(0), draws)
        seen = [timestep.observation]
        extras = [(jnp.stack([a, b]), jnp.zeros(2, int)), (jnp.zeros(2, int), jnp.stack([d, e]))]
        actions = jnp.array([[u, 0], [0, v]])
        rewards, discounts = [], []
        for joint in actions:
            state, timestep = CARDS.step(state, joint)
            seen.append(CARDS.observe(state))
            rewards.append(timestep.reward)
            discounts.append(timestep.discount)
        choices = jnp.stack([jnp.stack(each) for each in extras])
        trajectory = Trajectory(
            stacked(seen),
            jnp.array([True, False, False]),
            learner.begin(params, seen[0], jax.random.key(0)),
            actions,
            baselines.bad.PublicStep(choices, ()),
            jnp.stack(rewards),
            jnp.stack(discounts),
            mask=jnp.ones(2),
        )
        batch = jax.tree.map(lambda leaf: leaf[None], trajectory)
        return algorithm.gradients(SPEC, params, batch, jnp.float32(0))[0]

    @jax.jit
    def mean(outcomes, weights):
        return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), jax.vmap(gradient)(outcomes))

    likely = np.flatnonzero(weights)
    found = mean(jnp.asarray(OUTCOMES[likely]), weights[likely])
    for ours, right in zip(
        *(jax.tree.leaves(each["params"]["policy"]) for each in (found, exact)), strict=True
    ):
        # The loss is a mean over two steps, and falls where the return rises.
        np.testing.assert_allclose(-2 * ours, right, atol=2e-5)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(exact["params"]["policy"])) > 0.1


# Particles


@pytest.mark.slow
def test_many_particles_believe_what_the_exact_belief_does():
    """Under the same probabilistic partial policies, of two agents and a tiger over three steps."""
    env = two_agent_tiger(time_limit=9)
    spec, kinds = GameSpec.of(env), (ExactBelief(), ParticleBelief(particles=20_000))
    agent = baselines.make("bad", tremble=0.3)
    key, masks = jax.random.key(5), jnp.ones((2, 3, 3), bool)
    state, _ = env.reset(key)
    memories = [kind.fresh(spec, jnp.uint32(7)) for kind in kinds]
    for _ in range(3):
        observation = env.observe(state)
        seen = [
            kind.see(spec, memory, observation.public_view)
            for kind, memory in zip(kinds, memories, strict=True)
        ]
        (_, exact), (_, sampled) = seen
        np.testing.assert_allclose(sampled.features, exact.features, atol=0.02)
        assert not sampled.held[~exact.held].any()  # nothing impossible
        # Who heard the tiger on the right is to open the left door: both listen, and so heard it on the left.
        policies, actions = agent.policies(jnp.array([[0, 0, 1]] * 2), masks), jnp.zeros(2, jnp.int32)
        memories = [
            kind.tell(spec, memory, Told(policies, actions))
            for kind, (memory, _) in zip(kinds, seen, strict=True)
        ]
        state, _ = env.step(state, actions)
    assert exact.features[-2] > 0.9  # the tiger is on the left


@pytest.mark.parametrize("name", but_slow(BOTH, {"bad"}))
def test_the_update_sees_what_was_seen_in_play(name):
    """Across the borders of episodes, whose first beliefs are drawn anew from the stored seeds."""
    env = two_agent_tiger(time_limit=2)
    spec, algorithm = GameSpec.of(env), baselines.make(name, hidden=(4,))
    learner = algorithm.bind(spec)
    params = randomised(learner.init(jax.random.key(0)).params, 1)
    rows, carry = play(env, learner, params, jax.random.key(1), 5)
    observations, carries, decisions, timesteps = zip(*rows, strict=True)
    last = observations[-1]  # any one: its view is not looked at below
    trajectory = Trajectory(
        stacked([*observations, last]),
        jnp.array([True, False, True, False, True, False]),
        carries[0],
        jnp.stack([decision.actions for decision in decisions]),
        stacked([decision.extras for decision in decisions]),
        jnp.stack([timestep.reward for timestep in timesteps]),
        jnp.stack([timestep.discount for timestep in timesteps]),
        mask=jnp.ones(5),
    )
    found = algorithm.views(spec, trajectory)
    for t, (carry, observation) in enumerate(zip(carries, observations, strict=True)):
        _, view = algorithm.belief.see(spec, carry, observation.public_view)
        np.testing.assert_allclose(found.features[t], view.features, atol=1e-6)
        assert (found.held[t] == view.held).all()


# What is refused


def test_public_agents_play_games_with_public_observations_only(bad_input):
    for name in BOTH:
        made = baselines.make(name)
        for game in ("two-step", "tiger", "hmm"):
            with bad_input("private-cards or two-agent-tiger: this one has no public observations"):
                made.bind(GameSpec.of(envs.make(game)))
        made.bind(GameSpec.of(envs.make("two-agent-tiger")))
        with bad_input("the algorithm needs discrete actions"):
            made.bind(GameSpec.of(envs.make("differential")))
        alone = team_pomdp(
            np.full((2, 2, 2), 0.5), np.eye(2), np.ones((1, 2, 2, 1)), public=np.full((2, 2, 2), 0.5)
        )
        with bad_input("private-cards or two-agent-tiger: this one has one agent"):
            made.bind(GameSpec.of(alone))
    with bad_input("particles must be at least 1, not 0"):
        baselines.make("bad-particles", particles=0)
    with bad_input("tremble must be in [0, 1], not 1.5"):
        baselines.make("bad-particles", tremble=1.5)


# What they learn


@pytest.mark.slow
def test_the_value_of_greedy_play():
    """By action 1 always, which earns 10 where the cards are the same and 0 elsewhere."""
    algorithm = baselines.make("bad", hidden=(3,))
    params = jax.tree.map(jnp.zeros_like, algorithm.bind(SPEC).init(jax.random.key(0)).params)
    assert float(value_by_starts(algorithm, CARDS, params)["value"]) == PAYOFF[:, :, 0, 0].mean() == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_public_agents_find_the_optimum_of_the_card_game(name):
    """On 80 % of 20 seeds, of a rule of 80 % of 100 in the claim."""
    experiment = Experiment(
        algorithm=baselines.make(name, learning_rate=1e-2), environment=CARDS, seeds=tuple(range(20)),
        env_steps=24_000, num_envs=32, evaluations=1, evaluation_episodes=1, probe=value_by_starts,
    )  # fmt: skip
    assert (train(experiment).history.last["value"] > 9.99).mean() >= 0.8
