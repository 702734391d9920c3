"""What the thesis's chapter 2 states about policy gradients, measured on random games by enumeration.

Every expectation is a sum over all states, joint actions or trajectories, in float64. "The gradient" is the
derivative, by automatic differentiation, of the exact performance η by the logits of softmax policies.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from envs.team_mdp import TeamModel
from jaxmarl_fac.exact import linear_systems
from jaxmarl_fac.exact import policies as exact
from jaxmarl_fac.exact.joint import best_values, optimal_q
from jaxmarl_fac.exact.projections import additive_fit
from jaxmarl_fac.policy_gradients import (
    adapted_kl_coefficient,
    clipped_surrogate,
    counterfactual_advantage,
    decomposed_advantages,
    default_action_advantage,
    entropy,
    log_policy,
    score_loss,
    soft_value,
)
from jaxmarl_fac.report.verdicts import over_games
from jaxmarl_fac.targets import clipped_double_q_target, lambda_returns, td_target

GAMMA, STATES, ACTIONS, CLIP = 0.9, 3, 3, 0.2
#: Of the random games that are judged. The rule was written with those of other numbers.
SEED = 2026

Errors = dict[str, np.ndarray]


def random_models(draw: np.random.Generator, games: int, states: int, counts: Sequence[int]) -> TeamModel:
    """Rewards from a standard normal distribution, transitions from a flat Dirichlet distribution, no end.

    Leaves have a leading axis of games. Like all random numbers here they are drawn by NumPy: compiling JAX's
    generators would take most of the time.
    """
    shape = (games, states, *counts)
    return TeamModel(
        transition=draw.dirichlet(np.ones(states), shape),  # type: ignore[arg-type]
        reward=draw.normal(size=shape),  # type: ignore[arg-type]
        terminal=np.zeros((games, states), bool),  # type: ignore[arg-type]
    )


def relative_error(found: jax.Array, wanted: jax.Array) -> jax.Array:
    """The largest difference as a share of the largest entry, `()`."""
    return jnp.max(jnp.abs(found - wanted)) / jnp.max(jnp.abs(wanted))


def probabilities(logits: jax.Array) -> tuple[jax.Array, ...]:
    """The policies, n of `(S, A)`, of logits `(n, S, A)`."""
    return tuple(jax.nn.softmax(logits, axis=-1))


def log_policies(logits: jax.Array) -> jax.Array:
    """The log-policies of logits, all actions being available."""
    return log_policy(logits, jnp.ones(logits.shape, bool))


# Whole episodes (2.26, 2.27)

HORIZON = 3
REINFORCE, BASELINE = "REINFORCE, whole episodes (2.27)", "a baseline b(s)"
WITHOUT_DISCOUNT = "REINFORCE without γ^t"


def whole_episodes(games: int) -> Errors:
    """The expectation of (2.27) over every trajectory of three steps against the gradient of (2.26).

    MDPs of two states and two actions whose episodes end after the third step.
    """
    size = 2
    paths = np.asarray(list(itertools.product(range(size), repeat=2 * HORIZON)))
    states, actions = jnp.asarray(paths[:, ::2]), jnp.asarray(paths[:, 1::2])  # (paths, T)
    discounts = jnp.asarray([1.0] * (HORIZON - 1) + [0.0])
    past = GAMMA ** jnp.arange(HORIZON)

    def work(
        model: TeamModel, logits: jax.Array, start: jax.Array, baseline: jax.Array
    ) -> dict[str, jax.Array]:
        def objective(logits: jax.Array) -> jax.Array:
            policy = jax.nn.softmax(logits, axis=-1)
            here, value = start, jnp.zeros(())
            for t in range(HORIZON):
                value += past[t] * jnp.sum(here[:, None] * policy * model.reward)
                here = jnp.einsum("s,sa,sat->t", here, policy, model.transition)
            return value

        chances = start[states[:, 0]] * jnp.prod(jax.nn.softmax(logits, axis=-1)[states, actions], axis=1)
        for t in range(HORIZON - 1):
            chances *= model.transition[states[:, t], actions[:, t], states[:, t + 1]]
        zeros, ones = jnp.zeros(HORIZON), jnp.ones(HORIZON)
        returns = jax.vmap(lambda_returns, (0, None, None, None, None, None))(
            model.reward[states, actions], discounts, zeros, ones, GAMMA, 1.0
        )  # (paths, T)

        def ascent(advantages: jax.Array, weights: jax.Array) -> jax.Array:
            def loss(logits: jax.Array) -> jax.Array:
                losses = score_loss(log_policies(logits)[states, actions], advantages)
                return jnp.sum(chances[:, None] * weights * losses)

            return -jax.grad(loss)(logits)

        wanted = jax.grad(objective)(logits)
        found = {
            REINFORCE: ascent(returns, past),
            BASELINE: ascent(returns - baseline[states], past),
            WITHOUT_DISCOUNT: ascent(returns, ones),
        }
        return {name: relative_error(gradient, wanted) for name, gradient in found.items()}

    draw = np.random.default_rng((SEED, 0))
    return over_games(
        work,
        random_models(draw, games, size, (size,)),
        draw.normal(size=(games, size, size)),
        draw.dirichlet(np.ones(size), games),
        draw.normal(size=(games, size)),
    )


# Teams: one state and joint action at a time (2.27, 2.69 to 2.71; VDAC, DOP; PPO's first step)

CENTRAL, CENTRAL_EACH = "Q of the joint action (2.71)", "Q of each agent's reward (2.71)"
DEFAULT, COMA = "default action (2.69)", "COMA (2.70)"
VDAC = "VDAC: one advantage for all"
DOP_OWN, DOP, DOP_UNIFORM = (
    "DOP, its linear critic",
    "DOP, fitted on its own play",
    "DOP, fitted to uniform play",
)
PPO_CLIP, PPO_KL = "PPO clipped, first step (2.34)", "PPO with KL, first step (2.35)"
STATE_VALUE = "V(s) as baseline"
#: Losses whose expected gradient is not exact, and is not claimed to be.
BIASED = (WITHOUT_DISCOUNT, DOP_UNIFORM)


class Plays(NamedTuple):
    """All joint actions of n agents with A actions each, U = A^n."""

    actions: jax.Array  # (U, n)
    alternatives: jax.Array  # (U, n, A), the joint action in which one agent plays another action


class TeamDraws(NamedTuple):
    """What else is drawn for a team, with a leading axis of games."""

    rewards: jax.Array  # (n, S, A, ..., A), of each agent
    defaults: jax.Array  # (S, n), default actions
    values: jax.Array  # (S, n), VDAC's V_i(s)
    weights: jax.Array  # (S, n), DOP's k_i(s)
    utilities: jax.Array  # (S, n, A), DOP's Q_i(s, a)


def all_plays(agents: int) -> Plays:
    """Every joint action."""
    actions = np.asarray(list(itertools.product(range(ACTIONS), repeat=agents)))
    bases = ACTIONS ** np.arange(agents)[::-1]
    change = (np.arange(ACTIONS) - actions[..., None]) * bases[:, None]
    return Plays(jnp.asarray(actions), jnp.asarray((actions @ bases)[:, None, None] + change))


def team_gradients(games: int, agents: int) -> tuple[Errors, Errors]:
    """Errors of expected gradients, and variances of single ones relative to no baseline; `(games,)` each."""
    plays = all_plays(agents)
    actions = plays.actions
    everyone = jnp.arange(agents)

    def work(
        model: TeamModel, logits: jax.Array, start: jax.Array, drawn: TeamDraws
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        policies = probabilities(logits)
        policy = jnp.stack(policies, axis=1)  # (S, n, A)
        joint = exact.joint_policy(policies)
        chances = joint.reshape(STATES, -1)  # (S, U)
        visits = exact.discounted_visits(model, GAMMA, joint, start)

        def performance(logits: jax.Array, reward: jax.Array) -> jax.Array:
            game = model._replace(reward=reward)
            return exact.performance(game, GAMMA, exact.joint_policy(probabilities(logits)), start)

        def of_actions(logits: jax.Array) -> jax.Array:
            """The log-probabilities log π_i(u_i|s), `(S, U, n)`."""
            return jnp.moveaxis(log_policies(logits)[everyone, :, actions], -1, 0)

        def expected(losses: Callable[[jax.Array], jax.Array]) -> jax.Array:
            """Minus the gradient of a loss `(S, U, n)` of log-probabilities `(S, U, n)`, in expectation."""

            def loss(logits: jax.Array) -> jax.Array:
                return jnp.sum(visits[:, None, None] * chances[..., None] * losses(of_actions(logits)))

            return -jax.grad(loss)(logits)

        def values(reward: jax.Array) -> jax.Array:
            game = model._replace(reward=reward)
            return exact.action_values(game, GAMMA, joint).reshape(chances.shape)

        # The team's reward, then one for each agent.
        rewards = jnp.concatenate([model.reward[None], drawn.rewards])
        q, *q_of_each = jax.vmap(values)(rewards)  # (S, U)
        wanted, *wanted_of_each = jax.vmap(jax.grad(performance), (None, 0))(logits, rewards)  # (n, S, A)
        own = q[:, plays.alternatives]  # (S, U, n, A)
        of_agents = jax.vmap(counterfactual_advantage)  # over agents
        coma = jax.vmap(jax.vmap(of_agents, (0, None, 0)), (0, 0, None))(own, policy, actions)
        over_agents = jax.vmap(default_action_advantage)
        default = jax.vmap(jax.vmap(over_agents, (0, 0, None)), (0, None, 0))(own, actions, drawn.defaults)
        v_tot = jnp.sum(drawn.values, axis=1)  # (S,)
        weights = drawn.weights

        def dop(utilities: jax.Array) -> jax.Array:
            """Advantages `(S, U, n)` of a critic Σ_i k_i Q_i with Q_i `(S, n, A)`."""
            of_state = jax.vmap(decomposed_advantages, (None, None, None, 0))
            return jax.vmap(of_state, (0, 0, 0, None))(weights, utilities, policy, actions)

        def fitted(data: jax.Array) -> jax.Array:
            """The best additive critic of Q on data `(S, n, A)`, as Q_i."""
            fit = jax.vmap(lambda table, chance: jnp.stack(additive_fit(table, list(chance)).utilities))
            return fit(q.reshape(model.reward.shape), data) / weights[..., None]

        def critic_value(logits: jax.Array) -> jax.Array:
            """E Q_tot of DOP's linear critic in the states visited."""
            policy = jnp.stack(probabilities(logits), axis=1)
            return jnp.sum(visits[:, None, None] * weights[..., None] * policy * drawn.utilities)

        old = of_actions(logits)
        team = (q - jnp.sum(chances * q, axis=1)[:, None])[..., None] * jnp.ones(agents)

        def clipped(log_probs: jax.Array) -> jax.Array:
            return -clipped_surrogate(jnp.exp(log_probs - old), team, CLIP)

        def penalised(log_probs: jax.Array) -> jax.Array:  # the mean of old - new is KL(old || new)
            return -jnp.exp(log_probs - old) * team + (old - log_probs)

        own_return = jnp.stack([each[agent] for agent, each in enumerate(wanted_of_each)])
        advantages = {
            CENTRAL: q[..., None],
            CENTRAL_EACH: jnp.stack(q_of_each, axis=-1),
            DEFAULT: default,
            COMA: coma,
            VDAC: (q - v_tot[:, None])[..., None],
            DOP_OWN: dop(drawn.utilities),
            DOP: dop(fitted(policy)),
            DOP_UNIFORM: dop(fitted(jnp.full_like(policy, 1 / ACTIONS))),
            STATE_VALUE: team,
        }
        stacked = jnp.stack([jnp.broadcast_to(each, old.shape) for each in advantages.values()])
        ascents = jax.vmap(lambda each: expected(lambda log_probs: score_loss(log_probs, each)))(stacked)
        gradients = dict(zip(advantages, ascents, strict=True))
        gradients |= {PPO_CLIP: expected(clipped), PPO_KL: expected(penalised)}
        goals = {CENTRAL_EACH: own_return, DOP_OWN: jax.grad(critic_value)(logits)}
        errors = {name: relative_error(each, goals.get(name, wanted)) for name, each in gradients.items()}

        def variance(advantages: jax.Array) -> jax.Array:
            """Of `A_i ∂ log π_i` at one state of the discounted visits and one joint action, summed up."""
            scores = jax.nn.one_hot(actions, ACTIONS) - policy[:, None]  # (S, U, n, A)
            squares = jnp.sum((advantages[..., None] * scores) ** 2, axis=(2, 3))
            frequency = (1 - GAMMA) * visits[:, None] * chances
            return jnp.sum(frequency * squares) - (1 - GAMMA) ** 2 * jnp.sum(wanted**2)

        variances = dict(zip(advantages, jax.vmap(variance)(stacked), strict=True))
        return errors, {
            name: variances[name] / variances[CENTRAL] for name in (DEFAULT, STATE_VALUE, COMA, DOP)
        }

    draw = np.random.default_rng((SEED, agents))
    return over_games(
        work,
        random_models(draw, games, STATES, (ACTIONS,) * agents),
        draw.normal(size=(games, agents, STATES, ACTIONS)),
        draw.dirichlet(np.ones(STATES), games),
        TeamDraws(
            rewards=jnp.asarray(draw.normal(size=(games, agents, STATES, *(ACTIONS,) * agents))),
            defaults=jnp.asarray(draw.integers(ACTIONS, size=(games, STATES, agents))),
            values=jnp.asarray(draw.normal(size=(games, STATES, agents))),
            weights=jnp.asarray(draw.uniform(0.1, 2.0, (games, STATES, agents))),
            utilities=jnp.asarray(draw.normal(size=(games, STATES, agents, ACTIONS))),
        ),
    )


# Advantages over n steps (2.28, 2.29)

MOST_STEPS = 5


class Steps(NamedTuple):
    """The n-step estimate of Q(s, a), n = 1, ..., `MOST_STEPS`, on `games` random MDPs."""

    error: np.ndarray  # (games, n), largest error of its mean with the true V, as a share of max |A|
    bias: np.ndarray  # (games, n), largest error of its mean with a wrong V
    deviation: np.ndarray  # (games, n), its standard deviation with the wrong V


def n_step_advantages(games: int) -> Steps:
    """(2.28) in every state and action of MDPs with two states and two actions, over all that may follow.

    The wrong V is the true one plus standard normal noise.
    """
    size = 2

    paths = np.asarray(list(itertools.product(range(size), repeat=2 * MOST_STEPS + 1)))
    states, actions = jnp.asarray(paths[:, ::2]), jnp.asarray(paths[:, 1::2])  # (paths, T + 1), (paths, T)
    masks = jnp.tril(jnp.ones((MOST_STEPS, MOST_STEPS)))  # (n, T), the first n steps

    def work(model: TeamModel, policy: jax.Array, noise: jax.Array) -> tuple[jax.Array, ...]:
        value = exact.state_values(model, GAMMA, policy)
        advantages = exact.advantages(model, GAMMA, policy)
        moves = model.transition[states[:, :-1], actions, states[:, 1:]]
        chances = jnp.prod(moves, axis=1) * jnp.prod(policy[states[:, 1:-1], actions[:, 1:]], axis=1)
        rewards = model.reward[states[:, :-1], actions]

        def estimate(value: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
            """The advantage's mean and variance given the first state and action, `(S, A)`."""
            returns = jax.vmap(lambda_returns, (0, None, 0, None, None, None))(
                rewards, jnp.ones(MOST_STEPS), value[states[:, 1:]], mask, GAMMA, 1.0
            )
            found = returns[:, 0] - value[states[:, 0]]
            # The first state and action vary slowest.
            mean, square = (
                jnp.sum((chances * numbers).reshape(size, size, -1), axis=2) for numbers in (found, found**2)
            )
            return mean, square - mean**2

        both = jnp.stack([value, value + noise])
        means, variances = jax.vmap(jax.vmap(estimate, (None, 0)), (0, None))(both, masks)  # (2, n, S, A)
        error = jax.vmap(relative_error, (0, None))(means[0], advantages)
        bias = jnp.max(jnp.abs(means[1] + (both[1] - value)[:, None] - advantages), axis=(1, 2))
        return error, bias, jnp.sqrt(jnp.mean(jnp.maximum(variances[1], 0), axis=(1, 2)))

    draw = np.random.default_rng((SEED, 4))
    models = random_models(draw, games, size, (size,))
    policies = draw.dirichlet(np.ones(size), (games, size))
    return Steps(*over_games(work, models, policies, draw.normal(size=(games, size))))


# Trust regions (2.30 to 2.33)


class TrustRegion(NamedTuple):
    """Pairs of policies of `games` random MDPs, with γ from 0 to .99."""

    divergence: np.ndarray  # (games,), max_s KL(π || π̃)
    slack: np.ndarray  # (games,), η(π̃) minus the bound
    sampled_error: np.ndarray  # (games,), of (2.33)'s objective against L - η
    mean_above_max: np.ndarray  # (games,), the mean divergence of (2.33) minus the largest one of (2.32)
    rise: np.ndarray  # (games,), of η where the bound is largest along its gradient


def trust_regions(games: int) -> TrustRegion:
    """TRPO's bound and its two objectives. π̃ is a mixture of π and another policy, by .001 to 1 of it."""

    def work(
        model: TeamModel,
        gamma: jax.Array,
        start: jax.Array,
        logits: jax.Array,
        other: jax.Array,
        share: jax.Array,
    ) -> tuple[jax.Array, ...]:
        policy = jax.nn.softmax(logits)
        new = (1 - share) * policy + share * other

        bounds_of = jax.vmap(lambda each: exact.trust_region_bound(model, gamma, policy, each, start))
        etas_of = jax.vmap(lambda each: exact.performance(model, gamma, each, start))
        divergence = exact.largest_divergence(model, policy, new)
        visits = exact.discounted_visits(model, gamma, policy, start)
        advantages = exact.advantages(model, gamma, policy)
        sampled = jnp.sum(visits[:, None] * policy * (new / policy) * advantages)
        scale = jnp.sum(visits[:, None] * policy * jnp.abs(advantages))
        each = jnp.sum(policy * jnp.log(policy / new), axis=1)
        mean_divergence = jnp.sum(visits * each) / jnp.sum(visits)

        (gradient,) = exact.policy_gradient(model, gamma, (policy,), start)
        sizes = jnp.logspace(-9.0, 1.0, 41) / jnp.max(jnp.abs(gradient))
        moved = jax.nn.softmax(logits + sizes[:, None, None] * gradient)  # (sizes, S, A)
        bounds = bounds_of(jnp.concatenate([new[None], moved]))
        best = moved[jnp.argmax(bounds[1:])]
        eta, eta_new, eta_best = etas_of(jnp.stack([policy, new, best]))
        gain = exact.surrogate_performance(model, gamma, policy, new, start) - eta
        return (
            divergence,
            eta_new - bounds[0],
            jnp.abs(sampled - gain) / scale,
            mean_divergence - divergence,
            eta_best - eta,
        )

    draw = np.random.default_rng((SEED, 5))
    return TrustRegion(
        *over_games(
            work,
            random_models(draw, games, STATES, (ACTIONS,)),
            draw.uniform(0, 0.99, games),
            draw.dirichlet(np.ones(STATES), games),
            draw.normal(size=(games, STATES, ACTIONS)),
            draw.dirichlet(np.ones(ACTIONS), (games, STATES)),
            10 ** draw.uniform(-3, 0, games),
        )
    )


# PPO's two forms (2.34, 2.35)

PPO_STATES, PPO_STEP, PPO_STEPS = 5, 0.05, 20
KL_TARGET = 0.01
FORMS = ("clipped", "adaptive KL")


class Ascent(NamedTuple):
    """Exact iterations of PPO's two forms on `games` random MDPs."""

    gains: dict[str, np.ndarray]  # (games, iterations + 1), η's share of the way to the optimum
    divergences: dict[str, np.ndarray]  # (games, iterations), the mean KL(old || new) of each
    above_unclipped: np.ndarray  # (games,), the clipped objective minus the other, at a random policy


def ppo(games: int, iterations: int) -> Ascent:
    """Each iteration maximises the expected objective by 20 steps of Adam, from the policy it is taken at."""
    optimiser = optax.adam(PPO_STEP)

    start = jnp.full(PPO_STATES, 1 / PPO_STATES)

    def work(
        model: TeamModel, first: jax.Array, other: jax.Array
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array], jax.Array]:

        def run(clip: jax.Array, coefficient: jax.Array) -> tuple[jax.Array, jax.Array]:
            """Shares of the possible gain `(iterations + 1,)`, divergences `(iterations,)`."""

            def iterate(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[Any, Any]:
                old, coefficient = carry
                policy, old_log = jax.nn.softmax(old), log_policies(old)
                visits = exact.discounted_visits(model, GAMMA, policy, start)
                frequency = visits[:, None] / jnp.sum(visits) * policy
                advantages = exact.advantages(model, GAMMA, policy)

                def divergence_of(log_probs: jax.Array) -> jax.Array:
                    return jnp.sum(frequency * (old_log - log_probs))

                def loss(logits: jax.Array) -> jax.Array:
                    log_probs = log_policies(logits)
                    gains = clipped_surrogate(jnp.exp(log_probs - old_log), advantages, clip)
                    return coefficient * divergence_of(log_probs) - jnp.sum(frequency * gains)

                def step(carry: tuple[jax.Array, Any], _: None) -> tuple[Any, None]:
                    logits, state = carry
                    updates, state = optimiser.update(jax.grad(loss)(logits), state)
                    return (logits + updates, state), None

                (new, _), _ = jax.lax.scan(step, (old, optimiser.init(old)), length=PPO_STEPS)
                divergence = divergence_of(log_policies(new))
                coefficient = adapted_kl_coefficient(coefficient, divergence, KL_TARGET)
                return (new, coefficient), (new, divergence)

            _, (logits, divergences) = jax.lax.scan(iterate, (first, coefficient), length=iterations)
            every = jax.nn.softmax(jnp.concatenate([first[None], logits]))
            etas = jax.vmap(lambda policy: exact.performance(model, GAMMA, policy, start))(every)
            return (etas - etas[0]) / (optimum - etas[0]), divergences

        optimum = jnp.sum(start * best_values(optimal_q(model, GAMMA)))
        # A coefficient of 0 stays 0, and an infinite clip clips nothing.
        gains, divergences = jax.vmap(run)(jnp.asarray([CLIP, jnp.inf]), jnp.asarray([0.0, 1.0]))
        policy = jax.nn.softmax(first)
        advantages = exact.advantages(model, GAMMA, policy)
        ratio = other / policy
        above = jnp.max(clipped_surrogate(ratio, advantages, CLIP) - ratio * advantages)
        return dict(zip(FORMS, gains, strict=True)), dict(zip(FORMS, divergences, strict=True)), above

    draw = np.random.default_rng((SEED, 6))
    models = random_models(draw, games, PPO_STATES, (ACTIONS,))
    first = draw.normal(size=(games, PPO_STATES, ACTIONS))
    other = draw.dirichlet(np.ones(ACTIONS), (games, PPO_STATES))
    return Ascent(*over_games(work, models, first, other))


# Deterministic policies (2.36 to 2.38)

DETERMINISTIC = "deterministic policy (2.36)"


class Deterministic(NamedTuple):
    """Linear policies u = k s of scalar linear-quadratic problems, `(games,)` each."""

    gradient_error: np.ndarray  # of the derivative of (2.36) over the discounted visits
    td_error: np.ndarray  # the largest residual of (2.37) at the true Q, as a share of the largest |Q|


def deterministic(games: int) -> Deterministic:
    """Dynamics s' = a s + b u, reward -(q s² + r u²), from s = 1; |a + b k| < 1, so that η(k) is finite."""

    def work(
        costs: jax.Array,
        effect: jax.Array,
        gain: jax.Array,
        closed: jax.Array,
        states: jax.Array,
        actions: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        state_cost, action_cost = costs
        drift = closed - effect * gain  # a

        def cost_to_go(gain: jax.Array) -> jax.Array:
            """P(k), with V(s) = -P s²."""
            return (state_cost + action_cost * gain**2) / (1 - GAMMA * (drift + effect * gain) ** 2)

        def q(state: jax.Array, action: jax.Array) -> jax.Array:
            following = drift * state + effect * action
            now = state_cost * state**2 + action_cost * action**2
            return -now - GAMMA * cost_to_go(gain) * following**2

        # s_t = (a + b k)^t, and all is quadratic in s: the visits count by Σ_t γ^t s_t².
        visits = 1 / (1 - GAMMA * closed**2)
        found = visits * jax.grad(lambda k: q(jnp.ones(()), k * jnp.ones(())))(gain)
        wanted = jax.grad(lambda k: -cost_to_go(k))(gain)
        following = drift * states + effect * actions
        rewards = -(state_cost * states**2 + action_cost * actions**2)
        targets = td_target(rewards, jnp.ones(20), GAMMA, q(following, gain * following))
        return relative_error(found, wanted), relative_error(q(states, actions), targets)

    draw = np.random.default_rng((SEED, 7))
    return Deterministic(
        *over_games(
            work,
            draw.uniform(0.1, 2, (games, 2)),
            draw.choice((-1.0, 1.0), games) * draw.uniform(0.2, 2, games),  # b
            draw.normal(size=games),  # k
            draw.uniform(-1, 1, games),  # a + b k
            *draw.normal(size=(2, games, 20)),
        )
    )


#: Standard deviations of the critics' errors; true values are standard normal.
CRITIC_NOISE = (0.25, 0.5, 1.0, 2.0)
TARGETS = ("one critic (2.37)", "least of two (2.38)")


def target_errors(games: int, candidates: int = 10) -> dict[str, np.ndarray]:
    """How far targets lie above the true value of the action they are taken at: `(games, noise)`.

    Actions are the best of ten by the first of two critics with independent errors.
    """

    def work(true: jax.Array, noise: jax.Array) -> dict[str, jax.Array]:
        def excess(scale: jax.Array) -> tuple[jax.Array, jax.Array]:
            critics = true + scale * noise
            best = jnp.argmax(critics[0])
            least = clipped_double_q_target(jnp.zeros(()), jnp.ones(()), 1.0, critics[:, best])
            return critics[0, best] - true[best], least - true[best]

        return dict(zip(TARGETS, jax.vmap(excess)(jnp.asarray(CRITIC_NOISE)), strict=True))

    draw = np.random.default_rng((SEED, 8))
    return over_games(work, draw.normal(size=(games, candidates)), draw.normal(size=(games, 2, candidates)))


# The entropy regulariser and FOP


class Soft(NamedTuple):
    """Policies that maximise E Q_jt + α Σ_i H(π_i) of two agents, found by Newton's method."""

    log_probs: np.ndarray  # (games, 2, A), α log π_i
    advantages: np.ndarray  # (games, 2, A), Q_i - V_i
    joint_error: np.ndarray  # (games,), of the joint Boltzmann policy against the product


SOFT_ACTIONS, SOFT_STEPS = 4, 100


def soft_optima(games: int) -> Soft:
    """Q_jt = Q_1 + Q_2 with standard normal Q_i, four actions each; α from .5 to 2."""

    def work(utilities: jax.Array, alpha: jax.Array, start: jax.Array) -> tuple[jax.Array, ...]:
        available = jnp.ones((2, SOFT_ACTIONS), bool)
        q_jt = utilities[0][:, None] + utilities[1]

        def loss(flat: jax.Array) -> jax.Array:
            log_probs = log_policies(flat.reshape(start.shape))
            first, second = jnp.exp(log_probs)
            return -first @ q_jt @ second - alpha * jnp.sum(entropy(log_probs, available))

        def step(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
            """A Newton step, damped the more the worse or the longer the last ones were (Marquardt, 1963)."""
            flat, damping = carry
            curvature = jax.hessian(loss)(flat) + damping * jnp.eye(flat.size)
            new = flat - linear_systems.solve(curvature, jax.grad(loss)(flat))
            # Long steps end where a policy is nearly deterministic, and hardly any gradient leads back.
            better = (loss(new) <= loss(flat)) & (jnp.max(jnp.abs(new - flat)) <= 1)
            return (jnp.where(better, new, flat), damping * jnp.where(better, 0.3, 4.0)), None

        (found, _), _ = jax.lax.scan(step, (start.ravel(), jnp.ones(())), length=SOFT_STEPS)
        log_probs = log_policies(found.reshape(start.shape))
        values = jax.vmap(soft_value, (0, None, 0))(utilities, alpha, available)
        joint = jax.nn.softmax(q_jt.ravel() / alpha).reshape(q_jt.shape)
        product = jnp.multiply.outer(*jnp.exp(log_probs))
        return alpha * log_probs, utilities - values[:, None], jnp.max(jnp.abs(joint - product))

    draw = np.random.default_rng((SEED, 9))
    utilities, start = draw.normal(size=(2, games, 2, SOFT_ACTIONS))
    return Soft(*over_games(work, utilities, draw.uniform(0.5, 2, games), start))
