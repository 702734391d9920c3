"""Soft value iteration and evaluation for two players with a model."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike as Scalar

from jaxmarl_fac.exact.linear_systems import solve
from jaxmarl_fac.soft.stages import SoftBackup


class TwoPlayerModel(NamedTuple):
    """A finite two-player game with one reward, from one agent's side."""

    reward: jax.Array  # (S, A, B)
    transition: jax.Array  # (S, A, B, S) probabilities; the game ends with 1 minus their sum
    gamma: jax.Array  # ()


#: Maps a state's table `(A, B)`, and further inputs of that state such as priors, to its soft backup.
BackupFunction = Callable[..., SoftBackup]


def lookahead(model: TwoPlayerModel, values: jax.Array) -> jax.Array:
    """`r(s,a,b) + γ E V(s')`: state values `(S,)` to joint action values `(S, A, B)`."""
    return model.reward + model.gamma * model.transition @ values


def bellman(
    model: TwoPlayerModel, soft_backup: BackupFunction, q: jax.Array, *backup_inputs: jax.Array
) -> jax.Array:
    """The soft Bellman operator `(B q)(s,a,b) = r + γ E V(s')` with V(s') the soft value of q(s').

    A γ-contraction in the maximum norm for each backup of `stages.py` and any sign of β: they
    are monotone, and adding a constant to q adds it to V.

    Args:
        model: rewards in the units of the backup (β r for `pr2` and `rommeo`).
        soft_backup: for example `functools.partial(agent_first, beta_own=2.0, beta_other=-3.0)`.
        q: `(S, A, B)`.
        *backup_inputs: further arguments of `soft_backup` with a leading state axis, such as priors.
    """
    return lookahead(model, jax.vmap(soft_backup)(q, *backup_inputs).value)


def fixed_point(
    operator: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    contraction: Scalar,
    tolerance: Scalar = 1e-10,
    max_iterations: int = 100_000,
) -> jax.Array:
    """The x with `operator(x) = x`, of the shape of `start`, by iteration.

    Args:
        operator: a contraction in the maximum norm.
        start: the first x.
        contraction: its modulus γ < 1, `()`: it bounds the error by γ / (1 - γ) times the last change.
        tolerance: the largest error, unless rounding errors are larger.
        max_iterations: the most iterations.
    """
    rounding = 4 * jnp.finfo(start.dtype).eps

    def going(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        x, change, iteration = carry
        far = (contraction * change > (1 - contraction) * tolerance) & (
            change > rounding * jnp.max(jnp.abs(x))
        )
        return ((iteration == 0) | far) & (iteration < max_iterations)

    def improve(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        x, _, iteration = carry
        updated = operator(x)
        return updated, jnp.max(jnp.abs(updated - x)), iteration + 1

    first = (start, jnp.asarray(jnp.inf, start.dtype), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(going, improve, first)[0]


def soft_value_iteration(
    model: TwoPlayerModel,
    soft_backup: BackupFunction,
    *backup_inputs: jax.Array,
    tolerance: float = 1e-10,
    max_iterations: int = 100_000,
) -> tuple[jax.Array, SoftBackup]:
    """The fixed point q `(S, A, B)` of `bellman`, and the backup of every state (leading axis S).

    Args:
        model: see `bellman`.
        soft_backup: see `bellman`.
        *backup_inputs: see `bellman`.
        tolerance: the largest error of q, unless rounding errors are larger.
        max_iterations: the most iterations.
    """
    q = fixed_point(
        lambda q: bellman(model, soft_backup, q, *backup_inputs),
        model.reward,
        contraction=model.gamma,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    return q, jax.vmap(soft_backup)(q, *backup_inputs)


def regularised_evaluation(
    model: TwoPlayerModel,
    policy: jax.Array,
    opponent: jax.Array,
    beta_own: Scalar,
    beta_other: Scalar,
    own_prior: Scalar | None = None,
    other_prior: Scalar | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Exact values of two given policies: q `(S, A, B)` and V `(S,)` (thesis, equations 3.34, 3.39).

    `q = r + γ E V` and `V = E[q - log(π/P)/β - log(ρ/P)/β']`, solved as a linear system. A β of ±inf drops
    its term. At β = 0 the term is 0 for a policy equal to the prior, and infinite for any other.

    Args:
        model: see `bellman`.
        policy: π(a|s), `(S, A, 1)`, or π(a|s,b), `(S, A, B)`.
        opponent: ρ(b|s), `(S, 1, B)`, or ρ(b|s,a), `(S, A, B)`.
        beta_own: β, `()`.
        beta_other: β', `()`.
        own_prior: broadcastable to `(S, A, B)`; uniform if None.
        other_prior: broadcastable to `(S, A, B)`; uniform if None.
    """
    states, actions, others = model.reward.shape
    chex.assert_rank([policy, opponent], 3)
    joint = policy * opponent  # (S, A, B)

    def penalty(chosen: jax.Array, prior: Scalar, beta: Scalar) -> jax.Array:
        played = chosen > 0
        ratio = jnp.log(jnp.where(played, chosen, 1)) - jnp.log(jnp.where(played, prior, 1))
        return jnp.where(ratio == 0, 0, ratio / jnp.asarray(beta, ratio.dtype))

    stage_reward = (
        model.reward
        - penalty(policy, 1 / actions if own_prior is None else own_prior, beta_own)
        - penalty(opponent, 1 / others if other_prior is None else other_prior, beta_other)
    )
    moves = jnp.einsum("sab,sabt->st", joint, model.transition)
    expected = jnp.sum(jnp.where(joint > 0, joint * stage_reward, 0), axis=(1, 2))
    values = solve(jnp.eye(states, dtype=moves.dtype) - model.gamma * moves, expected)
    return lookahead(model, values), values


def contraction_factor(
    operator: Callable[[jax.Array], jax.Array], first: jax.Array, second: jax.Array
) -> jax.Array:
    """`max|T x - T y| / max|x - y|` for one pair x, y of the same shape: a lower bound of T's modulus."""
    chex.assert_equal_shape([first, second])
    return jnp.max(jnp.abs(operator(first) - operator(second))) / jnp.max(jnp.abs(first - second))
