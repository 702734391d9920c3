"""QMIX: the joint value never decreases in any utility (Rashid et al., 2018)."""

import dataclasses

from baselines.factored import FactoredLearner
from jaxmarl_fac.mixers import QMixer
from jaxmarl_fac.settings import AnyWidths, Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class QMIX(FactoredLearner):
    """Monotone mixing: `Q_tot = f(Q_1, ..., Q_n; s)`, its weights made by hypernetworks.

    Attributes:
        mixer_embed: width of the mixer's one hidden layer.
        hypernet_hidden: hidden layers of the hypernetworks: () is the first paper's one linear layer,
            (64,) is PyMARL2's.
    """

    mixer_embed: Count = 32
    hypernet_hidden: AnyWidths = ()

    def mixer(self) -> QMixer:
        """The monotone network."""
        return QMixer(self.mixer_embed, self.hypernet_hidden)
