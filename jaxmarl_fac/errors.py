"""Errors raised during training."""

from jaxmarl_fac.tracking import History


class DivergedError(RuntimeError):
    """The parameters or update metrics of a learner are no longer finite.

    Attributes:
        lanes: names of the diverged lanes, such as "seed 3" or "game 0 seed 3".
        history: the evaluations up to then.
    """

    def __init__(self, lanes: list[str], env_steps: int, history: History):
        self.lanes = lanes
        self.history = history
        shown = ", ".join(lanes[:10]) + (f" and {len(lanes) - 10} more" if len(lanes) > 10 else "")
        super().__init__(
            f"diverged to NaN or infinity by environment step {env_steps}: {shown}; "
            "earlier evaluations are kept; try a smaller learning rate"
        )
