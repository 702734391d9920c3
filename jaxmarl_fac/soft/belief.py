"""Exact beliefs over hidden states: filters, bounds on the evidence, public beliefs, and what they are worth.

Functions are pure, unbatched and jitted, and callers vmap them, but for the two that enumerate policies of a
game, `belief_value` and `team_value`. The precision is that of the tables: build them, and call these, inside
`jax.enable_x64(True)` for float64.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from envs.errors import BadInputError
from envs.memory import check_fits
from envs.tables import check_probabilities
from envs.team_pomdp import HiddenModel
from jaxmarl_fac.exact.joint import check_count, is_concrete

#: The number of an observation that was not seen.
UNSEEN = -1
#: An exponent at which nothing fits into memory, whose powers are still floats.
_HUGE = 60
#: Digits to which beliefs are the same.
_SAME = 9


class Chain(NamedTuple):
    """A hidden Markov chain with what was observed of it, over T steps and S states."""

    prior: jax.Array  # (S,), of the first state, before its observation
    transition: jax.Array  # (T - 1, S, S)
    likelihood: jax.Array  # (T, S), of each observation in each state


class Filtered(NamedTuple):
    """What Bayes' rule makes of a chain."""

    belief: jax.Array  # (T, S), of each state given all observations up to it
    log_evidence: jax.Array  # (T,), log-probability of each observation given those before it


def check_chain(chain: Chain) -> None:
    """Check shapes and, if they are not traced, that every row is a distribution.

    Raises:
        BadInputError: if the shapes do not fit together, or a row of the prior or of the transitions has a
            negative entry or does not sum to 1.
    """
    steps, states = chain.likelihood.shape
    if chain.prior.shape != (states,) or chain.transition.shape != (steps - 1, states, states):
        raise BadInputError(
            f"a chain with prior {chain.prior.shape}, transition {chain.transition.shape} and likelihood "
            f"{chain.likelihood.shape} does not fit together: give (S,), (T - 1, S, S) and (T, S)"
        )
    if is_concrete(chain):
        check_probabilities(np.asarray(chain.prior), "prior")
        if steps > 1:
            check_probabilities(np.asarray(chain.transition), "transition")


def bayes_filter(chain: Chain) -> Filtered:
    """Filter a chain by Bayes' rule: `b_t(s) ∝ p(o_t|s) Σ_{s'} p(s|s') b_{t-1}(s')`.

    An observation that was impossible has a log-evidence of -inf, and leaves the belief as it was predicted.

    Raises:
        BadInputError: see `check_chain`.
    """
    check_chain(chain)
    return _filter(chain)


@jax.jit
def _filter(chain: Chain) -> Filtered:
    def see(predicted: jax.Array, likelihood: jax.Array) -> tuple[jax.Array, jax.Array]:
        return update(predicted, likelihood)

    first, first_evidence = see(chain.prior, chain.likelihood[0])

    def step(
        belief: jax.Array, inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        transition, likelihood = inputs
        belief, evidence = see(belief @ transition, likelihood)
        return belief, (belief, evidence)

    _, (rest, evidence) = jax.lax.scan(step, first, (chain.transition, chain.likelihood[1:]))
    return Filtered(
        jnp.concatenate([first[None], rest]), jnp.log(jnp.concatenate([first_evidence[None], evidence]))
    )


def update(belief: jax.Array, likelihood: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Bayes' rule: posterior `(S,)` and evidence `()`; an impossible observation leaves the belief."""
    chex.assert_equal_shape([belief, likelihood])
    joint = belief * likelihood
    evidence = jnp.sum(joint)
    return jnp.where(evidence > 0, joint / jnp.where(evidence > 0, evidence, 1), belief), evidence


@jax.jit
def smoothing_proposal(chain: Chain) -> jax.Array:
    """The exact proposal `q(z_t|z_{t-1}, o_{t:T})`, `(T, S, S)`; its first matrix has the same row S times.

    Paths drawn from it come from the posterior given all observations, so that every path's weight is the
    likelihood itself.
    """

    def backward(onward: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        transition, likelihood = inputs
        weights = transition * (likelihood * onward)  # (S, S)
        total = jnp.sum(weights, axis=-1)
        return total / jnp.max(total), weights / jnp.where(total > 0, total, 1)[:, None]

    transition = with_prior(chain)
    _, proposal = jax.lax.scan(
        backward, jnp.ones_like(chain.prior), (transition, chain.likelihood), reverse=True
    )
    return proposal


def with_prior(chain: Chain) -> jax.Array:
    """All moves of a chain, `(T, S, S)`: the first comes from nowhere and has the prior in each row."""
    states = chain.prior.shape[0]
    first = jnp.broadcast_to(chain.prior, (1, states, states))
    return jnp.concatenate([first, chain.transition])


class Paths(NamedTuple):
    """All S^T paths of a chain."""

    states: jax.Array  # (S^T, T)
    log_weight: jax.Array  # (S^T,), log p(path, observations) - log q(path)
    proposal: jax.Array  # (S^T,), q(path)


@jax.jit
def enumerate_paths(chain: Chain, proposal: jax.Array) -> Paths:
    """Every path of a chain with its weight under a proposal `(T, S, S)`; see `smoothing_proposal`.

    Raises:
        BadInputError: if they do not fit into memory.
    """
    steps, states = chain.likelihood.shape
    check_fits(8 * (steps + 2) * states ** min(steps, _HUGE), f"the {states}^{steps} paths of a chain")
    paths = jnp.asarray(list(itertools.product(range(states), repeat=steps)))  # (S^T, T)
    before = jnp.concatenate([jnp.zeros_like(paths[:, :1]), paths[:, :-1]], axis=1)
    times = jnp.arange(steps)
    log_q = jnp.sum(jnp.log(proposal[times, before, paths]), axis=1)
    log_p = jnp.sum(
        jnp.log(with_prior(chain)[times, before, paths]) + jnp.log(chain.likelihood[times, paths]), axis=1
    )
    drawn = log_q > -jnp.inf  # the others never come, whatever their weight
    return Paths(paths, jnp.where(drawn, log_p - log_q, -jnp.inf), jnp.exp(log_q))


@functools.partial(jax.jit, static_argnames="particles")
def iwae_bound(log_weight: jax.Array, proposal: jax.Array, particles: int) -> jax.Array:
    """The importance-weighted bound `E log (1/K) Σ_k w(z_k)` of K draws, exactly: `(Z,)`, `(Z,)` to `()`.

    (Burda et al., 2016; thesis, equation 5.2.) Sums over all multisets of K of the Z latents. K = 1 is the
    ELBO, and the bound rises with K towards the log-likelihood.

    Args:
        log_weight: `log p(x, z) - log q(z|x)`.
        proposal: `q(z|x)`; latents of probability 0 are never drawn.
        particles: K.

    Raises:
        BadInputError: for no particle, or more multisets than fit into memory.
    """
    chex.assert_rank([log_weight, proposal], 1)
    chex.assert_equal_shape([log_weight, proposal])
    check_count(particles, "particles")
    latents = log_weight.shape[0]
    draws = math.comb(latents + particles - 1, particles)
    check_fits(16 * draws * particles, f"all draws of {particles} of {latents} latents")
    sets = np.array(list(itertools.combinations_with_replacement(range(latents), particles)))  # (D, K)
    orders = [
        math.factorial(particles)
        / math.prod(map(math.factorial, np.unique(row, return_counts=True)[1].tolist()))
        for row in sets
    ]
    chances = jnp.asarray(orders, proposal.dtype) * jnp.prod(proposal[sets], axis=1)  # (D,)
    bounds = logsumexp(log_weight[sets], axis=1) - math.log(particles)
    return jnp.sum(jnp.where(chances > 0, chances * jnp.where(chances > 0, bounds, 0), 0))


# Chains of what is hidden in a game


@jax.jit
def chain_of(model: HiddenModel, actions: jax.Array, public: jax.Array, private: jax.Array) -> Chain:
    """The chain of a game's states, given the joint actions and what was seen.

    With the private observations of agent i alone it is that agent's own, with none it is what everybody
    knows of agents whose actions do not depend on what they saw.

    Args:
        model: of the game, with n agents.
        actions: `(T - 1, n)`.
        public: `(T,)`, public observations, or `UNSEEN`.
        private: `(T, n)`, private observations, or `UNSEEN` where they are not known.
    """
    chex.assert_rank([actions, public, private], [2, 1, 2])
    agents = jnp.arange(private.shape[1])

    def likelihood(shown: jax.Array, signs: jax.Array, public: jax.Array, private: jax.Array) -> jax.Array:
        seen = jnp.where(public == UNSEEN, 1, shown[:, public])  # (S,)
        own = jnp.where(private[:, None] == UNSEEN, 1, signs[agents, :, private])  # (n, S)
        return seen * jnp.prod(own, axis=0)

    def move(joint: jax.Array, public: jax.Array, private: jax.Array) -> tuple[jax.Array, jax.Array]:
        cell = tuple(joint)
        later = likelihood(model.public[cell], model.private[(slice(None), *cell)], public, private)
        return model.transition[(slice(None), *cell)], later

    first = likelihood(model.first_public, model.first_private, public[0], private[0])
    transition, later = jax.vmap(move)(actions, public[1:], private[1:])
    return Chain(model.start, transition, jnp.concatenate([first[None], later]))


@jax.jit
def public_chain_of(
    model: HiddenModel, policies: Sequence[jax.Array], actions: jax.Array, public: jax.Array
) -> Chain:
    """The chain of states and private observations, given public observations and actions.

    Its states are `(s, o_1, ..., o_n)` in C order. An action tells of the private observation that it was
    chosen by: step t has the likelihood of its public observation times `Π_i π_i(u_i|o_i)`.

    Args:
        model: of the game.
        policies: for each agent its partial policies `(T, O, A_i)`, from its private observation to chances
            of its actions; all ones where an action tells nothing.
        actions: `(T, n)`.
        public: `(T,)`, public observations.
    """
    chex.assert_rank([actions, public, *policies], [2, 1, *[3] * len(policies)])
    agents, seen = model.first_private.shape[0], model.first_private.shape[-1]
    shape = (model.start.shape[0], *(seen,) * agents)  # of x

    def signs(table: jax.Array) -> jax.Array:
        """The chances `(S, O, ..., O)` of all private observations together, from `(n, S, O)`."""
        joint = jnp.ones((shape[0],), table.dtype)
        for own in table:
            joint = joint[..., None] * own.reshape(shape[0], *(1,) * (joint.ndim - 1), seen)
        return joint

    def telling(t: jax.Array) -> jax.Array:
        chance = jnp.ones((1,), model.start.dtype)
        for agent, policy in enumerate(policies):
            chance = chance[..., None] * policy[t, :, actions[t, agent]]
        return chance  # (1, O, ..., O)

    def over_states(shown: jax.Array) -> jax.Array:
        return shown.reshape(-1, *(1,) * agents)

    def move(t: jax.Array) -> tuple[jax.Array, jax.Array]:
        cell = tuple(actions[t])
        after = signs(model.private[(slice(None), *cell)])  # (S, O, ..., O)
        moves = model.transition[(slice(None), *cell)].reshape(-1, shape[0], *(1,) * agents) * after
        rows = jnp.repeat(moves.reshape(shape[0], -1), seen**agents, axis=0)  # (X, X)
        return rows, over_states(model.public[cell][:, public[t + 1]])

    steps = actions.shape[0]
    transition, later = jax.vmap(move)(jnp.arange(steps - 1))
    shown = jnp.concatenate([over_states(model.first_public[:, public[0]])[None], later])  # (T, S, 1, ..., 1)
    likelihood = jax.vmap(lambda shown, t: jnp.broadcast_to(shown * telling(t), shape).reshape(-1))(
        shown, jnp.arange(steps)
    )
    prior = over_states(model.start) * signs(model.first_private)
    return Chain(prior.reshape(-1), transition, likelihood)


def public_start(model: HiddenModel) -> jax.Array:
    """The public belief of the first state and private observations, `(S, O, ..., O)`, before any is seen."""
    return _over(model.start, model.first_private) * _together(model.first_private)


def public_update(shown: jax.Array, belief: jax.Array, public: jax.Array) -> jax.Array:
    """The public belief `(S, O, ..., O)` after a public observation `()` that states show by `(S, P)`."""
    likelihood = shown[:, public].reshape(-1, *(1,) * (belief.ndim - 1))
    return update(belief, jnp.broadcast_to(likelihood, belief.shape))[0]


def public_move(
    model: HiddenModel, belief: jax.Array, policies: Sequence[jax.Array], actions: jax.Array
) -> jax.Array:
    """The public belief of the next state and private observations, after a joint action that all saw.

    The action tells of the private observations that it was chosen by, as in `public_belief`, and then the
    state moves.

    Args:
        model: of the game.
        belief: `(S, O, ..., O)`, with the last public observation seen.
        policies: for each agent its partial policy `(O, A_i)`.
        actions: `(n,)`.
    """
    told = jnp.ones((1,), belief.dtype)
    for agent, policy in enumerate(policies):
        told = told[..., None] * policy[:, actions[agent]]
    belief, _ = update(belief, jnp.broadcast_to(told, belief.shape))
    cell = tuple(actions)
    states = jnp.sum(belief, axis=tuple(range(1, belief.ndim))) @ model.transition[(slice(None), *cell)]
    signs = model.private[(slice(None), *cell)]
    return _over(states, signs) * _together(signs)


def _together(signs: jax.Array) -> jax.Array:
    """The chances `(S, O, ..., O)` of all private observations, from those of each agent, `(n, S, O)`."""
    joint = jnp.ones(signs.shape[1:2], signs.dtype)
    for own in signs:
        joint = joint[..., None] * own.reshape(own.shape[0], *(1,) * (joint.ndim - 1), own.shape[1])
    return joint


def _over(states: jax.Array, signs: jax.Array) -> jax.Array:
    return states.reshape(-1, *(1,) * signs.shape[0])


# Partial policies: the public agent's choice, from what one player holds to its action


def deterministic(choices: ArrayLike, num_actions: int) -> jax.Array:
    """A partial policy `(C, A)` that plays `choices (C,)`, an action for each private observation."""
    return jax.nn.one_hot(jnp.asarray(choices), num_actions, dtype=float)


@jax.jit
def public_belief(belief: jax.Array, policy: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The public belief after an action, `B'(c) ∝ π(u|c) B(c)`, and the action's probability `()`.

    (Foerster et al., 2019, equation 2; for a deterministic partial policy π(u|c) is 1 or 0.) An action that
    the policy never takes leaves the belief.

    Args:
        belief: `(C, ...)`, of what the player holds, and perhaps of more.
        policy: `(C, A)`, the player's partial policy.
        action: `()`, u.
    """
    chex.assert_rank([policy, action], [2, 0])
    taken = policy[:, action].reshape(-1, *(1,) * (belief.ndim - 1))
    return update(belief, jnp.broadcast_to(taken, belief.shape))


@jax.jit
def partial_policy_value(payoff: jax.Array, chances: jax.Array, policy: jax.Array) -> jax.Array:
    """What a partial policy of player 1 earns if player 2 replies as best it can, `()`.

    Player 2 holds c_2 and sees u_1, and knows the policy: it maximises over its belief of c_1.

    Args:
        payoff: `(C_1, C_2, A_1, A_2)`.
        chances: `(C_1, C_2)` of the deals.
        policy: `(C_1, A_1)`.
    """
    chex.assert_rank([payoff, chances, policy], [4, 2, 2])
    weighed = jnp.einsum("ij,iu,ijuv->juv", chances, policy, payoff)  # (C_2, A_1, A_2)
    return jnp.sum(jnp.max(weighed, axis=-1))


@jax.jit
def partial_policy_values(payoff: jax.Array, chances: jax.Array) -> jax.Array:
    """`partial_policy_value` of every deterministic partial policy: `(A_1, ..., A_1)`, an axis per c_1."""
    cards, actions = payoff.shape[0], payoff.shape[2]
    choices = jnp.asarray(list(itertools.product(range(actions), repeat=cards)))
    values = jax.vmap(lambda own: partial_policy_value(payoff, chances, deterministic(own, actions)))(choices)
    return values.reshape((actions,) * cards)


# What beliefs are worth


def belief_value(model: HiddenModel, horizon: int) -> jax.Array:
    """The best expected reward `()` of a game of one agent in `horizon` steps, undiscounted.

    By dynamic programming over all beliefs that it may come to. Values are homogeneous in the belief, which
    need not be normalised: the value of B is `max_u [Σ_s B(s) r(s, u) + Σ_o V(B_o)]`.

    Raises:
        BadInputError: for another number of agents, a horizon below 1, or more beliefs than fit into memory.
    """
    _check_agents(model, 1)
    check_count(horizon, "horizon")
    outcomes = model.public.shape[-1] * model.private.shape[-1]
    beliefs = outcomes * (model.reward.shape[1] * outcomes) ** min(horizon - 1, _HUGE)
    check_fits(16 * beliefs * model.start.shape[0], f"the beliefs of {horizon} steps")
    return _belief_value(model, horizon)


@functools.partial(jax.jit, static_argnames="horizon")
def _belief_value(model: HiddenModel, horizon: int) -> jax.Array:
    going = 1 - model.terminal

    def value(belief: jax.Array, left: int) -> jax.Array:
        belief = belief * going
        now = belief @ model.reward  # (A,)
        if left == 1:
            return jnp.max(now)
        moved = jnp.einsum("s,sut->ut", belief, model.transition)
        after = jnp.einsum("ut,utp,uto->upot", moved, model.public, model.private[0])
        later = jax.vmap(lambda each: value(each, left - 1))(after.reshape(-1, belief.shape[0]))
        return jnp.max(now + jnp.sum(later.reshape(now.shape[0], -1), axis=1))

    first = jnp.einsum("s,sp,so->pos", model.start, model.first_public, model.first_private[0])
    return jnp.sum(jax.vmap(lambda each: value(each, horizon))(first.reshape(-1, going.shape[0])))


def merged_belief_value(model: HiddenModel, horizon: int) -> float:
    """As `belief_value`, where histories are many and the beliefs that they lead to are few.

    In the tiger problem they depend on how much more often one side was heard than the other. Beliefs that
    agree to nine digits are one. The computation is NumPy's, in the precision of the tables.

    Raises:
        BadInputError: for another number of agents, or a horizon below 1.
    """
    _check_agents(model, 1)
    check_count(horizon, "horizon")
    tables: Any = jax.tree.map(np.asarray, model)
    going = 1 - tables.terminal
    # Of what is seen, X = P O, and of the moves that lead there: (A, S, X) and (S, A, S, X).
    sights = np.einsum("utp,uto->utpo", tables.public, tables.private[0])
    moves = np.einsum("sut,utx->sutx", tables.transition, sights.reshape(*sights.shape[:2], -1))
    first = np.einsum("s,sp,so->pos", tables.start, tables.first_public, tables.first_private[0])
    layers = [_merged(first)]
    for _ in range(horizon - 1):
        layers.append(_merged(np.einsum("bs,sutx->buxt", layers[-1][0] * going, moves)))
    later: Any = 0.0
    for beliefs, chances, places in reversed(layers):
        values = ((beliefs * going) @ tables.reward + later).max(axis=1)
        later = np.sum(chances * values[places], axis=-1)  # (B, A) of the beliefs before
    return float(np.sum(later))


def _merged(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct beliefs `(B, S)` among `joint (..., S)`, and the chance and the place of each, `(...)`."""
    chance = joint.sum(axis=-1)
    normalised = joint / np.where(chance > 0, chance, 1)[..., None]
    rounded = np.round(normalised.reshape(-1, joint.shape[-1]), _SAME)
    _, kept, places = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    beliefs = normalised.reshape(rounded.shape)[kept]
    return beliefs, chance, places.reshape(chance.shape)


def team_value(model: HiddenModel, horizon: int) -> jax.Array:
    """The best expected reward `()` of a team of two that does not talk, in `horizon` steps, undiscounted.

    By dynamic programming over public beliefs of the state and of what each agent has seen in private: at
    each step a public agent chooses a prescription for each player, from its private history to its action,
    and everybody then sees the public observation. Without public observations it is the decentralised POMDP.
    (Nayyar et al., 2013.) In the last step player 2's prescription is a best reply.

    Raises:
        BadInputError: for another number of agents, a horizon below 1, or more prescriptions than fit into
            memory.
    """
    _check_agents(model, 2)
    check_count(horizon, "horizon")
    seen = [
        (
            tuple(np.flatnonzero(np.asarray(model.first_private)[agent].any(axis=0)).tolist()),
            tuple(np.flatnonzero(np.asarray(model.private)[agent].any(axis=(0, 1, 2))).tolist()),
        )
        for agent in range(2)
    ]
    for agent, (first, later) in enumerate(seen):
        histories = len(first) * len(later) ** min(horizon - 1, _HUGE)
        count = model.reward.shape[1 + agent] ** min(histories, _HUGE)
        check_fits(64 * count * histories, f"the prescriptions for {histories} private histories")
    return _team_value(model, horizon, tuple(seen))


@functools.partial(jax.jit, static_argnames=("horizon", "seen"))
def _team_value(model: HiddenModel, horizon: int, seen: tuple[tuple[tuple[int, ...], ...], ...]) -> jax.Array:
    going = (1 - model.terminal)[:, None, None]
    counts = model.reward.shape[1:]
    (first_own, own), (first_other, other) = (tuple(map(np.asarray, each)) for each in seen)

    def prescriptions(agent: int, histories: int) -> jax.Array:
        return jnp.asarray(list(itertools.product(range(counts[agent]), repeat=histories)))

    def last(belief: jax.Array) -> jax.Array:
        earned = jnp.einsum("sgh,suv->guhv", belief, model.reward)  # by histories g, h and actions u, v
        rows = jnp.arange(earned.shape[0])

        def reply(choices: jax.Array) -> jax.Array:
            return jnp.sum(jnp.max(jnp.sum(earned[rows, choices], axis=0), axis=-1))

        return jnp.max(jax.vmap(reply)(prescriptions(0, rows.shape[0])))

    def value(belief: jax.Array, left: int) -> jax.Array:
        """Of a belief `(S, H_1, H_2)`, not normalised."""
        belief = belief * going
        if left == 1:
            return last(belief)
        states, mine, theirs = belief.shape
        every = (prescriptions(0, mine), prescriptions(1, theirs))
        pairs = np.stack(np.meshgrid(*(np.arange(len(each)) for each in every), indexing="ij"), axis=-1)

        def play(pair: jax.Array) -> jax.Array:
            u, v = every[0][pair[0]][:, None], every[1][pair[1]]  # (H_1, 1) and (H_2,)
            now = jnp.sum(belief * model.reward[:, u, v])
            moved = jnp.einsum("sgh,sght->ght", belief, model.transition[:, u, v])
            after = jnp.einsum(
                "ght,ghtp,ghtx,ghty->ptgxhy",
                moved,
                model.public[u, v],
                model.private[0][u, v][..., own],
                model.private[1][u, v][..., other],
            ).reshape(-1, states, mine * len(own), theirs * len(other))
            return now + jnp.sum(jax.vmap(lambda each: value(each, left - 1))(after))

        return jnp.max(jax.lax.map(play, pairs.reshape(-1, 2), batch_size=16))

    start = jnp.einsum(
        "s,sp,sx,sy->psxy",
        model.start,
        model.first_public,
        model.first_private[0][:, first_own],
        model.first_private[1][:, first_other],
    )
    return jnp.sum(jax.lax.map(lambda each: value(each, horizon), start))


def _check_agents(model: HiddenModel, wanted: int) -> None:
    agents = model.first_private.shape[0]
    if agents != wanted:
        raise BadInputError(f"the game has {agents} agent(s): give one of {wanted}")
