"""VDN: the joint value is the sum of the utilities (Sunehag et al., 2018)."""

import dataclasses

from baselines.factored import FactoredLearner
from jaxmarl_fac.mixers import VDNMixer


@dataclasses.dataclass(frozen=True, kw_only=True)
class VDN(FactoredLearner):
    """Value decomposition: `Q_tot = sum_i Q_i`."""

    def mixer(self) -> VDNMixer:
        """The sum."""
        return VDNMixer()
