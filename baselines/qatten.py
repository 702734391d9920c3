"""Qatten: the joint value is a sum of the utilities, weighted by attention (arXiv 2002.03939)."""

import dataclasses

from baselines.factored import FactoredLearner
from jaxmarl_fac.mixers import QattenMixer
from jaxmarl_fac.settings import Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qatten(FactoredLearner):
    """Attention over agents: `Q_tot = sum_h w_h(s) sum_i alpha_hi(s) Q_i + c(s)`.

    Attributes:
        heads: of attention.
        head_embed: length of their keys and queries.
    """

    heads: Count = 4
    head_embed: Count = 32

    def mixer(self) -> QattenMixer:
        """The attention heads."""
        return QattenMixer(self.heads, self.head_embed)
