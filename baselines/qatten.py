"""Qatten: the joint value is a sum of the utilities, weighted by attention (arXiv 2002.03939)."""

import dataclasses

from baselines.factored import FactoredLearner
from envs.errors import BadInputError
from jaxmarl_fac.mixers import QattenMixer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qatten(FactoredLearner):
    """Attention over agents: `Q_tot = sum_h w_h(s) sum_i alpha_hi(s) Q_i + c(s)`.

    Attributes:
        heads: of attention.
        head_embed: length of their keys and queries.
    """

    heads: int = 4
    head_embed: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("heads", "head_embed"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} must be at least 1, not {getattr(self, name)}")

    def mixer(self) -> QattenMixer:
        """The attention heads."""
        return QattenMixer(self.heads, self.head_embed)
