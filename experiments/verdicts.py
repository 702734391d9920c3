"""What verdicts are made of: shares with intervals, and a rule's parts."""

import numpy as np
from numpy.typing import ArrayLike

from jaxmarl_fac.report import Verdict
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
