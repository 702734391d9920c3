"""Games with options that the figures share: the worked examples, and random ones."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from envs.team_mdp import TeamModel
from jaxmarl_fac.soft import options

#: Worked numbers, checked independently to six digits.
SINGLE_NUMBERS: dict[str, ArrayLike] = {
    "V(s, z)": [[7.432090, 8.380912], [8.919289, 7.917855]],
    "V^H(s)": [8.015050, 8.539018],
    "U(s, z̄)": [[7.765462, 8.214620], [8.747122, 8.275911]],
    "π^H(z|s)": [[0.279122, 0.720878], [0.731341, 0.268659]],
    "π^T(1|s, z̄)": [[0.641748, 0.409541], [0.406062, 0.650483]],
}
#: V, V^H and U of the single-agent example with priors that do not depend on the option.
SINGLE_FLAT = [9.823313, 10.343519]
DELAYED_NUMBERS: dict[str, ArrayLike] = {
    "W(z̄_o, z̄_i)": [[2.807173, 2.225270], [2.225270, 1.984293]],
    "Q(z̄_o)": [2.557964, 2.112022],
    "Q(z̄_o, z_i)": [[3.006501, 1.723205], [2.326987, 1.837825]],
}
#: W of the two-agent example with priors that do not depend on the option.
DELAYED_FLAT = 2.215035

#: P(a|z) of the examples: option z prefers action z.
PREFERENCE = np.array([[0.9, 0.1], [0.1, 0.9]])


def single_example(action_prior: np.ndarray = PREFERENCE) -> options.OptionGame:
    """Two states; action a leads to state a; r(0, .) = (0, 1), r(1, .) = (2, 0); γ = .9, β = 1, p = .5."""
    model = TeamModel(
        transition=jnp.broadcast_to(jnp.eye(2), (2, 2, 2)),
        reward=jnp.array([[0.0, 1.0], [2.0, 0.0]]),
        terminal=jnp.zeros(2, bool),
    )
    return options.option_game(model, [action_prior], termination_prior=0.5, beta=1.0, gamma=0.9)


def delayed_example(action_prior: np.ndarray = PREFERENCE) -> options.OptionGame:
    """One state, reward [[2, 0], [0, 1]], γ = .5, β = 1, p = .5, for both agents."""
    model = TeamModel(
        transition=jnp.ones((1, 2, 2, 1)),
        reward=jnp.array([[[2.0, 0.0], [0.0, 1.0]]]),
        terminal=jnp.zeros(1, bool),
    )
    return options.option_game(model, [action_prior] * 2, termination_prior=0.5, beta=1.0, gamma=0.5)


def single_numbers(solution: options.SoftOptions) -> dict[str, np.ndarray]:
    """What `SINGLE_NUMBERS` lists."""
    values, policies = solution.values, solution.policies
    found = {
        "V(s, z)": values["action"],
        "V^H(s)": values["option"],
        "U(s, z̄)": values["termination"],
        "π^H(z|s)": policies["option"],
        "π^T(1|s, z̄)": policies["termination"][..., 1],
    }
    return {name: np.asarray(table) for name, table in found.items()}


def delayed_numbers(solution: options.SoftOptions) -> dict[str, np.ndarray]:
    """What `DELAYED_NUMBERS` lists, in the only state."""
    names = ("termination", "option", "action")
    tables = (np.asarray(solution.values[name])[0] for name in names)
    return dict(zip(DELAYED_NUMBERS, tables, strict=True))


class Sizes(NamedTuple):
    """Of random games."""

    states: int = 4
    options: int = 3
    actions: int = 3


def random_games(
    key: jax.Array, games: int, agents: int, dependence: ArrayLike = 1.0, sizes: Sizes | None = None
) -> options.OptionGame:
    """Random games with options, leading axis `(games,)`.

    Rewards are uniform in [-1, 1); rows of transitions and all priors are flat Dirichlet draws; p is uniform
    in [.1, .9), γ in [.5, .95), and β from .5 to 4 on a logarithmic scale.

    Args:
        key: all draws are from it.
        games: how many.
        agents: 1 or 2.
        dependence: of the priors over actions on the option: 1 for independent draws for all options, 0 for
            the same prior for all of them, and mixtures of both in between; `(games,)` or one for all.
        sizes: of every game.
    """
    states, m, actions = sizes or Sizes()
    keys = jax.random.split(key, 8)
    shape = (games, states, *(actions,) * agents)
    weight = jnp.reshape(jnp.asarray(dependence, float), (-1, 1, 1, 1))
    own, shared, over_options = (jax.random.split(each, agents) for each in keys[:3])

    def action_prior(agent: int) -> jax.Array:
        flat = jnp.ones(actions)
        each = jax.random.dirichlet(own[agent], flat, (games, states, m))
        same = jax.random.dirichlet(shared[agent], flat, (games, states, 1))
        return weight * each + (1 - weight) * same

    return options.OptionGame(
        transition=jax.random.dirichlet(keys[3], jnp.ones(states), shape),
        reward=jax.random.uniform(keys[4], shape, minval=-1.0),
        terminal=jnp.zeros((games, states), bool),
        action_priors=tuple(action_prior(agent) for agent in range(agents)),
        option_priors=tuple(
            jax.random.dirichlet(over_options[agent], jnp.ones(m), (games,)) for agent in range(agents)
        ),
        termination_prior=jax.random.uniform(keys[5], (games,), minval=0.1, maxval=0.9),
        beta=0.5 * 8.0 ** jax.random.uniform(keys[6], (games,)),
        gamma=jax.random.uniform(keys[7], (games,), minval=0.5, maxval=0.95),
    )


def perturbed(key: jax.Array, policies: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Other policies, all of them moved away by random factors of various sizes."""
    size_key, *keys = jax.random.split(key, len(policies) + 1)
    size = 10.0 ** jax.random.uniform(size_key, minval=-2.0, maxval=0.5)
    moved = {}
    for each, (name, policy) in zip(keys, sorted(policies.items()), strict=True):
        weights = policy * jnp.exp(size * jax.random.normal(each, policy.shape))
        moved[name] = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return moved


def largest_error(expected: Mapping[str, ArrayLike], ours: Mapping[str, np.ndarray]) -> float:
    """Over all worked numbers."""
    return max(float(np.abs(ours[name] - np.asarray(table)).max()) for name, table in expected.items())


class Checks(NamedTuple):
    """What holds of one game's fixed point, each `()`."""

    contraction: jax.Array  # largest shrinkage of a distance by the Bellman operator, divided by γ
    shrinkage: jax.Array  # that of the distance of two random tables
    gain: jax.Array  # the most that perturbed policies gain in the regularised objective, in any table
    improvement: jax.Array  # the most that the mean over states of it falls, which is positive


def check_fixed_point(game: options.OptionGame, key: jax.Array, model: options.OptionModel) -> Checks:
    """Whether the Bellman operator contracts distances by γ, and no other policies are better."""
    solution = options.solve(game, model)
    q = solution.q
    first_key, second_key, policy_key = jax.random.split(key, 3)
    spread = 10.0 * game.beta
    first = spread * jax.random.normal(first_key, q.shape)
    tables = jnp.stack([first, spread * jax.random.normal(second_key, q.shape), first + 1, q])
    after = jax.vmap(lambda table: options.bellman(game, model, table))(tables)

    def largest(difference: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(difference), axis=tuple(range(1, difference.ndim)))

    factors = largest(after[1:] - after[0]) / largest(tables[1:] - tables[0])
    others = jax.vmap(
        lambda each: options.evaluate(game, model, perturbed(each, solution.policies)).values["termination"]
    )(jax.random.split(policy_key, 4))
    gains = others - solution.values["termination"]
    return Checks(
        contraction=jnp.max(factors) / game.gamma,
        shrinkage=factors[0] / game.gamma,
        gain=jnp.max(gains),
        improvement=-jnp.mean(gains),
    )
