"""Value iteration on joint actions of finite team MDPs, and the parts shared by all exact solvers.

Every solver starts with `(model, discount, ...)`, is jitted, and can be vmapped over games, discounts and
data. The precision is that of the model: build it, and call these, inside `jax.enable_x64(True)` for
float64. Shapes: `S` states, agent i has `A_i` actions; quantities per agent, `(S, A_i)`, are tuples of n
arrays, because the A_i may differ. Ties in every argmax go to the lowest index.

All solvers raise `BadInputError` for a discount outside [0, 1) and for a model without agents.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from envs.errors import BadInputError
from envs.team_mdp import TeamModel

#: One array for each agent: utilities, q-functions or policies.
PerAgent = tuple[jax.Array, ...]


class ValueTrace(NamedTuple):
    """The iterates of value iteration, t = 0, ..., T; t = 0 is the start."""

    values: jax.Array  # (T + 1, S), max over joint actions of q
    q: jax.Array  # (T + 1, S, A_1, ..., A_n)


# Checks; traced values cannot be checked.

_Solver = TypeVar("_Solver", bound=Callable[..., Any])


def is_concrete(*values: Any) -> bool:
    """Whether none of the values is traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def solver(*static: str) -> Callable[[_Solver], _Solver]:
    """Decorator: jit a function of `(model, discount, ...)` and check these two before each call."""

    def decorate(solve: _Solver) -> _Solver:
        compiled = jax.jit(solve, static_argnames=static)

        @functools.wraps(solve)
        def checked(model: TeamModel, discount: ArrayLike, *args: Any, **kwargs: Any) -> Any:
            shape = model.reward.shape
            if len(shape) < 2:
                raise BadInputError(
                    f"a reward of shape {shape} has no agent: give "
                    "(states, actions of agent 1, ..., actions of agent n)"
                )
            if model.transition.shape != (*shape, shape[0]) or model.terminal.shape != shape[:1]:
                raise BadInputError(
                    f"a model with transition {model.transition.shape}, reward {shape} and terminal "
                    f"{model.terminal.shape} does not fit together: use `team_mdp(...).model()`, "
                    "and jax.vmap for a batch of games"
                )
            if is_concrete(discount) and not (np.min(discount) >= 0 and np.max(discount) < 1):
                raise BadInputError(f"the discount must be in [0, 1), not {discount}")
            return compiled(model, discount, *args, **kwargs)

        return cast(_Solver, checked)

    return decorate


def check_count(count: int, name: str) -> None:
    """Refuse a count below 1."""
    if count < 1:
        raise BadInputError(f"{name} must be at least 1, not {count}")


@solver()
def bellman_backup(model: TeamModel, discount: ArrayLike, values: jax.Array) -> jax.Array:
    """One Bellman backup, `y(s, u) = r(s, u) + discount E[values(s')]`, 0 in terminal states.

    Args:
        model: the game.
        discount: in [0, 1).
        values: `(S,)`, the state values; those of terminal states count as 0.

    Returns:
        `(S, A_1, ..., A_n)`.
    """
    next_values = jnp.matmul(
        model.transition, jnp.where(model.terminal, 0.0, values), precision=jax.lax.Precision.HIGHEST
    )
    over = model.terminal.reshape(-1, *(1,) * (model.reward.ndim - 1))
    return jnp.where(over, 0.0, model.reward + discount * next_values)


def best_values(q: jax.Array) -> jax.Array:
    """`max_u q(s, u)`, `(S,)`."""
    return q.max(axis=tuple(range(1, q.ndim)))


def total(parts: Iterable[jax.Array]) -> jax.Array:
    """The sum of arrays."""
    return functools.reduce(jnp.add, parts)


def with_start(start: Any, iterates: Any) -> Any:
    """Prepend the start to the stacked iterates, leaf by leaf."""
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, iterates)


@solver("sweeps")
def value_iteration(
    model: TeamModel, discount: ArrayLike, sweeps: int, start: jax.Array | None = None
) -> ValueTrace:
    """Value iteration on the joint action space, from `start (S, A_1, ..., A_n)`, 0 if None."""
    first = jnp.zeros_like(model.reward) if start is None else start

    def sweep(q: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        q = bellman_backup(model, discount, best_values(q))
        return q, q

    _, iterates = jax.lax.scan(sweep, first, length=sweeps)
    q = with_start(first, iterates)
    return ValueTrace(values=jax.vmap(best_values)(q), q=q)


@solver()
def optimal_q(model: TeamModel, discount: ArrayLike, tolerance: ArrayLike = 1e-10) -> jax.Array:
    """Q*, `(S, A_1, ..., A_n)`: value iteration until the error is below `tolerance` or at rounding level."""
    epsilon = jnp.finfo(model.reward.dtype).eps

    def unfinished(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        values, change = carry
        # |V - V*| <= discount / (1 - discount) times the last change.
        wanted = tolerance * (1 - discount) / jnp.maximum(discount, epsilon)
        return change > jnp.maximum(wanted, 8 * epsilon * jnp.abs(values).max())

    def sweep(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        values = best_values(bellman_backup(model, discount, carry[0]))
        return values, jnp.abs(values - carry[0]).max()

    start = best_values(jnp.zeros_like(model.reward)), jnp.full((), jnp.inf, model.reward.dtype)
    values, _ = jax.lax.while_loop(unfinished, sweep, start)
    return bellman_backup(model, discount, values)


def optimality_gap(q_star: jax.Array, actions: jax.Array) -> jax.Array:
    """The loss of playing `actions (S, n)` in the worst state, `max_s V*(s) - Q*(s, actions)`, `()`.

    It is 0 if and only if always playing them is optimal. `q_star (S, A_1, ..., A_n)` is `optimal_q`'s.
    """
    at_taken = jax.vmap(lambda q, joint: q[tuple(joint)])(q_star, actions)
    return (best_values(q_star) - at_taken).max()
