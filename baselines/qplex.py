"""QPLEX: a joint value that can be any with the IGM property (arXiv 2008.01062)."""

import dataclasses

from baselines.factored import FactoredLearner, FactoredNetwork
from envs.base import TeamEnvironment
from jaxmarl_fac.mixers import QPlexMixer
from jaxmarl_fac.settings import AnyWidths, Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class QPLEX(FactoredLearner):
    """Duplex dueling: `Q_tot = sum_i V_i + sum_i lambda_i(s, u) A_i`, with positive lambda_i.

    Attributes:
        kernels: summands of lambda_i: 10 for the paper's matrix games, 4 for StarCraft.
        kernel_hidden: hidden layers of their networks.
        weighted_head: transform the utilities by `w_i(s) Q_i + b_i(s)` first.
        stop_gradient: hold the advantages constant beside lambda_i; utilities then learn as VDN's do.
        minus_one: False makes the advantages weigh `1 + lambda_i`; both are the release's switches.
    """

    kernels: Count = 10
    kernel_hidden: AnyWidths = (64, 64)
    weighted_head: bool = True
    stop_gradient: bool = True
    minus_one: bool = True

    def mixer(self) -> QPlexMixer:
        """The duplex dueling network."""
        return QPlexMixer(
            self.kernels,
            self.kernel_hidden,
            weighted_head=self.weighted_head,
            stop_gradient=self.stop_gradient,
            minus_one=self.minus_one,
        )

    def network(self, env: TeamEnvironment) -> FactoredNetwork:
        """The agent network and the mixer, which is costly."""
        return FactoredNetwork(self.agent(env), self.mixer(), self.few_joint_actions(env))
