"""The progress bar of long work."""

from types import TracebackType

import numpy as np
from tqdm import tqdm

from jaxmarl_fac.experiment import Experiment
from jaxmarl_fac.statistics import iqm


class ProgressBar:
    """Environment steps of one seed, the steps of all seeds per second, and the time left."""

    def __init__(self, title: str, experiment: Experiment, iteration: int, enabled: bool):
        self._envs = experiment.num_envs
        self._lanes = experiment.lanes
        self._bar = tqdm(
            total=experiment.iterations * self._envs,
            initial=iteration * self._envs,
            desc=title or "training",
            unit=" steps",
            unit_scale=True,
            disable=not enabled,
            dynamic_ncols=True,
            postfix={"seeds": self._lanes},
        )

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, iterations: int) -> None:
        """So many iterations were done."""
        self._bar.update(iterations * self._envs)

    def show(self, row: dict[str, np.ndarray]) -> None:
        """Put the latest evaluation's return beside the bar."""
        centres = np.atleast_1d(iqm(row["episode_return"]))  # one, or one per agent
        shown = ", ".join(f"{centre:.3g}" for centre in centres)
        self._bar.set_postfix({"seeds": self._lanes, "return IQM": shown}, refresh=False)
