"""VDAC: one advantage for the whole team, from a value that is decomposed into the agents' own."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from baselines.factored import Mixing
from baselines.policy_gradient import CriticInputs, ValueMethod
from jaxmarl_fac.game import GameSpec
from jaxmarl_fac.mixers import MixerInputs
from jaxmarl_fac.settings import NotNegative


class MixedValues(nn.Module):
    """`V_tot`, `()`, mixed from the agents' own values, which are the last outputs of their networks.

    Args:
        mixer: `MixerInputs -> ()`; of the utilities it must read the chosen ones only.
        num_actions: A.
    """

    mixer: nn.Module
    num_actions: int

    def __call__(self, inputs: CriticInputs) -> jax.Array:
        values, observation = inputs.outputs[:, -1], inputs.observation
        nobody = jnp.zeros((values.shape[0], self.num_actions), values.dtype)
        views, state = observation.agents_view, observation.global_state
        return self.mixer(MixerInputs(values, values, nobody, views, state))  # type: ignore[no-any-return]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VDAC(ValueMethod):
    """`A = G^lambda - V_tot` for every agent, with `V_tot` mixed from `V_i(o_i)` (Su et al., 2021).

    Attributes:
        mixing: `VDN` is VDAC-sum, `QMIX` VDAC-mix.
        value_coefficient: weight of the loss of `V_tot` beside that of the policies.
    """

    mixing: Mixing
    value_coefficient: NotNegative = 0.1  # type: ignore[misc]

    extra_outputs: ClassVar[int] = 1

    def critic(self, game: GameSpec) -> MixedValues:
        return MixedValues(self.mixing.mixer(), game.num_actions)
