"""What verdicts are made of: shares with intervals, a rule's parts, and work on many games."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxmarl_fac.report.claims import Verdict
from jaxmarl_fac.statistics import Interval, wilson_interval


def judged(*parts: bool) -> Verdict:
    """Reproduced if all parts of a rule hold, partly if some do."""
    return "reproduced" if all(parts) else "partly" if any(parts) else "not reproduced"


def share(good: ArrayLike) -> Interval:
    """How many of the runs `(runs,)` are good, with a Wilson interval."""
    return wilson_interval(int(np.sum(good)), len(np.asarray(good)))


def percent(fraction: Interval) -> Interval:
    """The interval times 100."""
    return Interval(100 * fraction.value, 100 * fraction.low, 100 * fraction.high)


#: What "exact" means in float64.
TOLERANCE = 1e-6
#: Games that are worked on side by side; more would only fill memory.
BATCH = 100


def over_games(work: Callable[..., Any], *inputs: Any) -> Any:
    """`work` on every game of `inputs` (leading axis), compiled, as NumPy arrays."""
    mapped = jax.jit(lambda *items: jax.lax.map(lambda item: work(*item), items, batch_size=BATCH))
    return jax.tree.map(np.asarray, mapped(*inputs))
