"""What can go wrong while a run trains."""

from jaxmarl_fac.tracking import History


class DivergedError(RuntimeError):
    """A learner's numbers are no longer finite.

    Attributes:
        lanes: which, in words.
        history: the evaluations before.
    """

    def __init__(self, lanes: list[str], env_steps: int, history: History):
        self.lanes = lanes
        self.history = history
        shown = ", ".join(lanes[:10]) + (f" and {len(lanes) - 10} more" if len(lanes) > 10 else "")
        super().__init__(
            f"diverged to NaN or infinity by environment step {env_steps}: {shown}; "
            "what was finished before is kept; try a smaller learning rate"
        )
