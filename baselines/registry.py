"""Every algorithm by its id, made with the papers' settings for a family of environments."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from baselines.actor_critic import ActorCritic
from baselines.bad import ExactBelief, PublicAgent
from baselines.bad_particles import ParticleBelief
from baselines.balancing_ac import BalancingAC
from baselines.coma import COMA
from baselines.ddpg import DDPG, CentralCritic, ModelCritic, OwnCritic
from baselines.dop import DOP
from baselines.dvrl import DVRL
from baselines.equilibrium_q import FoeRule, FriendRule, NashRule
from baselines.factored import QMIX, QPLEX, VDN, Factored, Qatten
from baselines.families import ALGORITHM_SETTINGS, FAMILY_ENV_STEPS, FAMILY_SETTINGS
from baselines.fop import FOP
from baselines.independent import Distributed, HystereticWeighting, Independent, OptimisticWeighting
from baselines.iterated_games import FMQRule, JointActionRule, WoLFRule
from baselines.ltql import LTQL, TabularLogic
from baselines.maddpg_discrete import MADDPGDiscrete
from baselines.masql import MASQL
from baselines.maven import MAVEN
from baselines.opponent_modelling import (
    BalancingRule,
    GR2Rule,
    PR2Rule,
    ProbabilisticBalancingRule,
    RommeoRule,
    RommeoThesisRule,
    SoftQRule,
)
from baselines.parts import EpsilonGreedy, FeedForwardAgents, TransitionReplay
from baselines.policy_gradient import (
    CentralAction,
    CentralValue,
    IndependentValues,
    PolicyGradient,
    Reinforce,
)
from baselines.ppo import Proximal
from baselines.pqn import PQN
from baselines.pr2_ac import PR2AC
from baselines.q_learning import QLearning
from baselines.qtran import QTranAlt, QTranBase
from baselines.rommeo_ac import ROMMEOAC
from baselines.sac import SAC, SACDiscrete
from baselines.soft_options import DelayedOptionsAC, SoftOptionsAC
from baselines.tabular import TabularIndependent, TabularLearning, TabularReplayLearning
from baselines.td3 import TD3
from baselines.two_player import SelfPlay
from baselines.vdac import VDAC
from baselines.weighted import Central, Optimistic, RecentReplay, RegretMinimising, Weighted
from envs.errors import BadInputError
from envs.outside import find_outside, is_outside
from jaxmarl_fac.algorithm import Algorithm
from jaxmarl_fac.report.styles import DASHES, LABELS, PALETTE, STYLES, Style
from jaxmarl_fac.settings import leaves, replaced


class Entry(NamedTuple):
    """An algorithm with its default settings, and how it is shown.

    Attributes:
        algorithm: with its default settings.
        about: a line about it.
        label: what legends call it, as its paper does; the id if empty.
        style: of its curves in every figure; if None, one that depends on the id and on what else the figure
            shows.
    """

    algorithm: Algorithm
    about: str
    label: str = ""
    style: Style | None = None


#: Colours beyond the palette that colour-blind readers can tell from it.
BROWN, WINE, NAVY = "#6B4226", "#882255", "#1B2A80"
BLUE, ORANGE, GREEN, VERMILION, PINK, SKY, BLACK = PALETTE
SOLID, DASHED, DOTTED, DASH_DOTTED = DASHES


ALGORITHMS: dict[str, Entry] = {
    "iql": Entry(
        QLearning(method=Independent()),
        "Independent Q-learning: every agent fits its own Q_i to its reward.",
        "IQL",
        Style(BLUE, DASHED),
    ),
    "vdn": Entry(
        QLearning(method=Factored(mixing=VDN())),
        "Value decomposition: `Q_tot = sum_i Q_i`.",
        "VDN",
        Style(BLUE),
    ),
    "qmix": Entry(
        QLearning(method=Factored(mixing=QMIX())),
        "Monotone mixing: `Q_tot = f(Q_1, ..., Q_n; s)`, its weights made by hypernetworks.",
        "QMIX",
        Style(ORANGE),
    ),
    "qtran-base": Entry(
        QLearning(method=QTranBase()),
        "A free joint value, and utilities whose sum equals it at their greedy joint action (section 3.3).",
        "QTRAN-base",
        Style(GREEN),
    ),
    "qtran-alt": Entry(
        QLearning(method=QTranAlt()),
        "QTRAN-base with a counterfactual joint network and the tighter `L_nopt-min` (section 3.4).",
        "QTRAN-alt",
        Style(VERMILION),
    ),
    "qplex": Entry(
        QLearning(method=Factored(mixing=QPLEX())),
        "Duplex dueling: `Q_tot = sum_i V_i + sum_i lambda_i(s, u) A_i`, with positive lambda_i.",
        "QPLEX",
        Style(PINK),
    ),
    "qatten": Entry(
        QLearning(method=Factored(mixing=Qatten())),
        "Attention over agents: `Q_tot = sum_h w_h(s) sum_i alpha_hi(s) Q_i + c(s)`.",
        "Qatten",
        Style(ORANGE, DASHED),
    ),
    "pqn-iql": Entry(
        PQN(method=Independent(td_lambda=0.65)),
        "PQN (Gallici et al., 2024): IQL from rollouts of many environments, without replay or targets.",
        "PQN-IQL",
        Style(BLUE, DASH_DOTTED),
    ),
    "pqn-vdn": Entry(
        PQN(method=Factored(mixing=VDN(), td_lambda=0.65)),
        "PQN of the team's value, the sum of the utilities: VDN without replay or targets.",
        "PQN-VDN",
        Style(BLUE, DOTTED),
    ),
    "pqn-qmix": Entry(
        PQN(method=Factored(mixing=QMIX(), td_lambda=0.65)),
        "PQN of a monotone mixture of the utilities: QMIX without replay or targets.",
        "PQN-QMIX",
        Style(ORANGE, DOTTED),
    ),
    "pqn-qplex": Entry(
        PQN(method=Factored(mixing=QPLEX(), td_lambda=0.65)),
        "PQN of a duplex dueling mixture of the utilities: QPLEX without replay or targets.",
        "PQN-QPLEX",
        Style(PINK, DASH_DOTTED),
    ),
    "cw-qmix": Entry(
        QLearning(method=Weighted(weighting=Central()), target_period=200),
        "Centrally weighted QMIX: full weight for the greedy joint action, and for actions valued above it.",
        "CW-QMIX",
        Style(GREEN, DASHED),
    ),
    "ow-qmix": Entry(
        QLearning(method=Weighted(weighting=Optimistic()), target_period=200),
        "Optimistically weighted QMIX: full weight where Q_tot is below the target.",
        "OW-QMIX",
        Style(BLACK),
    ),
    "remix": Entry(
        QLearning(method=Weighted(weighting=RegretMinimising()), replay=RecentReplay(), target_period=200),
        "ReMIX: Weighted QMIX with the weights of theorem 1, which minimise the policy's regret.",
        "ReMIX",
        Style(SKY),
    ),
    "maven": Entry(
        MAVEN(exploration=EpsilonGreedy(epsilon_end=0.05, epsilon_steps=50_000)),
        "MAVEN: QMIX by a latent that is held for an episode, drawn by a policy that learns which ones pay.",
        "MAVEN",
        Style(NAVY, DASH_DOTTED),
    ),
    "ltql": Entry(
        QLearning(method=LTQL(), agents=FeedForwardAgents(), replay=TransitionReplay()),
        "Logical Team Q-learning with networks.",
        "LTQL",
        Style(VERMILION, DASHED),
    ),
    "hysteretic": Entry(
        QLearning(method=Independent(weighting=HystereticWeighting())),
        "Hysteretic Q-learning: IQL that learns less from negative errors (Matignon et al., 2007).",
        "Hysteretic Q",
    ),
    "distributed": Entry(
        QLearning(method=Distributed()),
        "Distributed Q-learning: IQL whose values never fall (Lauer and Riedmiller, 2000).",
        "Distributed Q",
    ),
    "ltql-tabular": Entry(
        TabularLearning(rule=TabularLogic()),
        "Logical Team Q-learning in tables.",
        "LTQL, tabular",
    ),
    "ltql-tabular-replay": Entry(
        TabularReplayLearning(rule=TabularLogic()),
        "Logical Team Q-learning in tables, from transitions that are sampled from replay.",
        "LTQL, tabular, replay",
    ),
    "reinforce": Entry(
        PolicyGradient(method=Reinforce(), rollout_length=None),
        "REINFORCE: every agent's policy follows the return of whole episodes (Williams, 1992).",
        "REINFORCE",
        Style(GREEN, DOTTED),
    ),
    "a2c": Entry(
        PolicyGradient(method=IndependentValues()),
        "Independent advantage actor-critic: every agent has a policy and a value of its own view.",
        "A2C",
        Style(VERMILION, DOTTED),
    ),
    "dvrl": Entry(
        DVRL(),
        "DVRL: A2C on learned particles, hypotheses of what is hidden, trained with a bound on the evidence.",
        "DVRL",
        Style(WINE, DASH_DOTTED),
    ),
    "independent-pg": Entry(
        PolicyGradient(method=IndependentValues(td_lambda=1.0), rollout_length=None),
        "Independent policy gradients from the returns of whole episodes, with a value as baseline.",
        "Independent PG",
        Style(BROWN, DOTTED),
    ),
    "ippo": Entry(
        PolicyGradient(method=IndependentValues(), objective=Proximal(), normalise_advantages=True),
        "Independent PPO: every agent has a ratio and a value of its own (de Witt et al., 2020).",
        "IPPO",
        Style(BLACK, DASH_DOTTED),
    ),
    "mappo": Entry(
        PolicyGradient(method=CentralValue(), objective=Proximal(), normalise_advantages=True),
        "Multi-agent PPO: a ratio for each agent, and one value of the state (Yu et al., 2022).",
        "MAPPO",
        Style(BLACK, DOTTED),
    ),
    "ppo": Entry(
        PolicyGradient(
            method=CentralValue(), objective=Proximal(joint_ratio=True), normalise_advantages=True
        ),
        "PPO of the team as one agent: the ratio of the joint action, and one value of the state.",
        "PPO",
        Style(VERMILION, DASH_DOTTED),
    ),
    "central-pg": Entry(
        PolicyGradient(method=CentralAction()),
        "Policy gradients with a central critic: all agents follow `Q(s, u_1, ..., u_n)`.",
        "Central PG",
        Style(GREEN, DASH_DOTTED),
    ),
    "coma": Entry(
        PolicyGradient(method=COMA()),
        "COMA: each agent's action against the average of its policy, by a central critic.",
        "COMA",
        Style(PINK, DASHED),
    ),
    "vdac-sum": Entry(
        PolicyGradient(method=VDAC(mixing=VDN())),
        "VDAC-sum: one advantage for all, over the sum of the agents' values (Su et al., 2021).",
        "VDAC-sum",
        Style(BROWN, DASHED),
    ),
    "vdac-mix": Entry(
        PolicyGradient(method=VDAC(mixing=QMIX())),
        "VDAC-mix: one advantage for all, over a monotone mixture of the agents' values.",
        "VDAC-mix",
        Style(BROWN),
    ),
    "dop": Entry(
        PolicyGradient(method=DOP()),
        "DOP: a critic that is linear in the agents' values, learned from rollouts and replay.",
        "DOP",
        Style(WINE),
    ),
    "fop": Entry(
        FOP(),
        "FOP: soft policies under twin critics, mixed so that joint and individual optima agree.",
        "FOP",
        Style(NAVY),
    ),
    "hysteretic-tabular": Entry(
        TabularLearning(rule=TabularIndependent(weighting=HystereticWeighting())),
        "Hysteretic Q-learning in tables.",
        "Hysteretic Q, tabular",
    ),
    "distributed-tabular": Entry(
        TabularLearning(rule=TabularIndependent(weighting=OptimisticWeighting()), initial_value=None),
        "Distributed Q-learning in tables; `step_size` 1 is the paper's maximum over all that was seen.",
        "Distributed Q, tabular",
    ),
    "iql-tabular": Entry(
        TabularLearning(rule=TabularIndependent()),
        "Independent Q-learning in tables: `Q_i(o, u) += step_size (r + gamma max Q_i(o', .) - Q_i(o, u))`.",
        "IQL, tabular",
    ),
    "soft-q": Entry(
        SelfPlay(rule=SoftQRule()),
        "Independent soft Q-learning of two agents.",
        "Soft Q",
    ),
    "pr2-q": Entry(
        SelfPlay(rule=PR2Rule()),
        "PR2-Q on both sides: each models the other's reply to its action as cooperative (Wen et al., 2019).",
        "PR2-Q",
    ),
    "rommeo-q": Entry(
        SelfPlay(rule=RommeoRule()),
        "ROMMEO-Q on both sides, as published: an inferred opponent under an empirical prior.",
        "ROMMEO-Q",
    ),
    "rommeo-q-emp": Entry(
        SelfPlay(rule=RommeoRule(model="empirical")),
        "ROMMEO-Q-EMP on both sides: the opponent model is the distribution of the other's last actions.",
        "ROMMEO-Q-EMP",
    ),
    "rommeo-q-thesis": Entry(
        SelfPlay(rule=RommeoThesisRule()),
        "ROMMEO-Q on both sides as in the thesis, with priors on both actions.",
        "ROMMEO-Q, thesis",
    ),
    "balancing-q": Entry(
        SelfPlay(rule=BalancingRule()),
        "Balancing-Q on both sides, adversaries by default (Grau-Moya et al., 2018).",
        "Balancing-Q",
        Style(PINK, DOTTED),
    ),
    "balancing-q-probabilistic": Entry(
        SelfPlay(rule=ProbabilisticBalancingRule()),
        "Probabilistic Balancing-Q on both sides, adversaries by default (thesis, section 3.5).",
        "Probabilistic Balancing-Q",
    ),
    "gr2-q": Entry(
        SelfPlay(rule=GR2Rule()),
        "GR2-Q on both sides: replies to replies, K levels deep (Wen et al., 2019).",
        "GR2-Q",
    ),
    "gr2-q-mixture": Entry(
        SelfPlay(rule=GR2Rule(mixture=True)),
        "GR2-Q on both sides with levels 1 to K mixed by a Poisson distribution, GR2-M.",
        "GR2-M",
    ),
    "nash-q": Entry(
        SelfPlay(rule=NashRule()),
        "Nash-Q on both sides (Hu and Wellman, 2003).",
        "Nash-Q",
    ),
    "friend-q": Entry(
        SelfPlay(rule=FriendRule()),
        "Friend-Q on both sides (Littman, 2001).",
        "Friend-Q",
    ),
    "foe-q": Entry(
        SelfPlay(rule=FoeRule()),
        "Foe-Q on both sides, which is minimax-Q (Littman, 2001).",
        "Foe-Q",
    ),
    "jal": Entry(
        SelfPlay(rule=JointActionRule()),
        "Joint-action learners on both sides (Claus and Boutilier, 1998).",
        "JAL",
    ),
    "wolf-phc": Entry(
        SelfPlay(rule=WoLFRule()),
        "WoLF-PHC on both sides: win or learn fast (Bowling and Veloso, 2002).",
        "WoLF-PHC",
    ),
    "fmq": Entry(
        SelfPlay(rule=FMQRule()),
        "Frequency maximum Q-value on both sides (Kapetanakis and Kudenko, 2002).",
        "FMQ",
    ),
    "ddpg": Entry(
        ActorCritic(method=DDPG(critic=OwnCritic())),
        "Independent DDPG (Lillicrap et al., 2016): each critic sees only its own agent's view and action.",
        "DDPG",
    ),
    "ddpg-om": Entry(
        ActorCritic(method=DDPG(critic=ModelCritic())),
        "DDPG with an opponent model: MADDPG with learned models of the other agents' policies.",
        "DDPG-OM",
    ),
    "maddpg": Entry(
        ActorCritic(method=DDPG(critic=CentralCritic())),
        "MADDPG (Lowe et al., 2017): a critic of the state and all actions, for each agent its own.",
        "MADDPG",
        Style(SKY, DOTTED),
    ),
    "td3": Entry(
        ActorCritic(method=TD3(critic=OwnCritic())),
        "TD3 (Fujimoto et al., 2018), each agent independently: twin critics, target noise, a delayed actor.",
        "TD3",
        Style(WINE, DASHED),
    ),
    "matd3": Entry(
        ActorCritic(method=TD3(critic=CentralCritic())),
        "MATD3 (Ackermann et al., 2019): TD3 with critics of the state and all actions.",
        "MATD3",
        Style(WINE, DOTTED),
    ),
    "maddpg-discrete": Entry(
        MADDPGDiscrete(),
        "MADDPG with discrete actions: critics of all actions, climbed by straight-through Gumbel-softmax.",
        "MADDPG (discrete)",
        Style(SKY, DASH_DOTTED),
    ),
    "masql": Entry(
        ActorCritic(method=MASQL()),
        "Soft Q-learning (Haarnoja et al., 2017) of joint actions, by each agent independently.",
        "MASQL",
    ),
    "sac": Entry(
        ActorCritic(method=SAC()),
        "Soft actor-critic (Haarnoja et al., 2018), each agent independently.",
        "SAC",
    ),
    "sac-discrete": Entry(
        ActorCritic(method=SACDiscrete()),
        "Soft actor-critic of discrete actions (Christodoulou, 2019), each agent independently.",
        "SAC, discrete",
    ),
    "pr2-ac": Entry(
        ActorCritic(method=PR2AC()),
        "PR2's actor-critic: the opponent is modelled as replying well to each of the agent's actions.",
        "PR2-AC",
    ),
    "rommeo-ac": Entry(
        ActorCritic(method=ROMMEOAC()),
        "ROMMEO's actor-critic: π(a|s,b) with entropy weight α, ρ(b|s) regularised towards past behaviour.",
        "ROMMEO-AC",
    ),
    "balancing-ac": Entry(
        ActorCritic(method=BalancingAC()),
        "Balancing-Q as an actor-critic (thesis, equations 3.55 to 3.60), for two agents.",
        "Balancing-AC",
    ),
    "soft-options": Entry(
        SoftOptionsAC(),
        "Soft options of one agent: termination, option and action policies (thesis, section 4.1).",
        "Soft options",
    ),
    "delayed-options": Entry(
        DelayedOptionsAC(),
        "Soft options of two agents that tell each other theirs one step late (thesis, section 4.2).",
        "Delayed options",
    ),
    "bad": Entry(
        PublicAgent(belief=ExactBelief()),
        "The Bayesian action decoder: a public agent chooses partial policies by the exact public belief "
        "(Foerster et al., 2019).",
        "BAD",
        Style(SKY, DASHED),
    ),
    "bad-particles": Entry(
        PublicAgent(belief=ParticleBelief(), tremble=0.05),
        "The probabilistic public agent: BAD with a public belief by particles (thesis, section 5.3).",
        "BAD, particles",
        Style(NAVY, DASHED),
    ),
}

STYLES.update({name: entry.style for name, entry in ALGORITHMS.items() if entry.style})
LABELS.update({name: entry.label for name, entry in ALGORITHMS.items() if entry.label})


def lookup(algorithm_id: str) -> Algorithm:
    """The algorithm with its default settings; `module:name` is an algorithm in the user's own module.

    Raises:
        BadInputError: if there is none of that id, or the id is no text.
    """
    if not isinstance(algorithm_id, str):
        raise BadInputError(
            f"the id of an algorithm must be text, such as 'qmix', not {type(algorithm_id).__name__}"
        )
    if is_outside(algorithm_id):
        return _outside(algorithm_id)
    if algorithm_id not in ALGORITHMS:
        raise BadInputError(f"unknown algorithm {algorithm_id!r}: choose one of {', '.join(ALGORITHMS)}")
    return ALGORITHMS[algorithm_id].algorithm


def _outside(name: str) -> Algorithm:
    found = find_outside(name)
    try:
        algorithm = found() if isinstance(found, type) else found
    except TypeError as error:
        raise BadInputError(f"{name} must have a default for every setting: {error}") from error
    if not callable(getattr(algorithm, "bind", None)):
        raise BadInputError(f"{name} must have a method bind(game, num_envs) that returns a Learner")
    return algorithm  # type: ignore[no-any-return]


def own_settings(algorithm_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that the algorithm has, as where several are compared in the same setting.

    Raises:
        BadInputError: for an unknown id.
    """
    known = leaves(lookup(algorithm_id))
    return {name: value for name, value in settings.items() if name in known}


def make(algorithm_id: str, family: str = "matrix", **overrides: Any) -> Any:
    """The algorithm with the paper's settings for a family of environments, some of them overridden.

    Raises:
        BadInputError: for an unknown id, family or setting, or a value that cannot be.

    Example:
        >>> qmix = make("qmix", family="stag-hunt", learning_rate=1e-3)
        >>> qmix.optimiser.learning_rate, qmix.target_period
        (0.001, 200)
        >>> make("qmix", learning_rate=-1)
        Traceback (most recent call last):
        envs.errors.BadInputError: learning_rate must be above 0, not -1
    """
    algorithm = lookup(algorithm_id)
    known = leaves(algorithm)
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise BadInputError(
            f"{algorithm_id} has no setting {unknown[0]!r}: it has {', '.join(sorted(known))}"
        )
    if family not in tuple(FAMILY_ENV_STEPS):  # whatever its type
        raise BadInputError(f"unknown family {family!r}: choose one of {', '.join(FAMILY_ENV_STEPS)}")
    of_family = own_settings(algorithm_id, FAMILY_SETTINGS.get(family, {}))
    return replaced(algorithm, **of_family | ALGORITHM_SETTINGS.get((algorithm_id, family), {}) | overrides)


def id_of(algorithm: Algorithm) -> str | None:
    """The id of an algorithm, whatever its settings; the closest one, where ids differ in settings only."""
    alike = [name for name, entry in ALGORITHMS.items() if _parts(entry.algorithm) == _parts(algorithm)]
    if len(alike) < 2:
        return next(iter(alike), None)
    settings = leaves(algorithm)

    def same(name: str) -> int:
        return sum(leaf.value == settings[each].value for each, leaf in leaves(lookup(name)).items())

    return max(alike, key=same)


def _parts(value: Any) -> Any:
    """The types that an algorithm is composed of."""
    if not dataclasses.is_dataclass(value):
        return type(value) if callable(getattr(value, "bind", None)) else None
    return type(value), [_parts(getattr(value, field.name)) for field in dataclasses.fields(value)]


#: The classes that algorithms had in runs saved by earlier code, and their ids.
OLD_CLASSES = {
    "IQL": "iql",
    "VDN": "vdn",
    "QMIX": "qmix",
    "QTranBase": "qtran-base",
    "QTranAlt": "qtran-alt",
    "QPLEX": "qplex",
    "Qatten": "qatten",
    "CWQMIX": "cw-qmix",
    "OWQMIX": "ow-qmix",
    "ReMIX": "remix",
    "LTQL": "ltql",
    "TabularLTQL": "ltql-tabular",
    "Hysteretic": "hysteretic",
    "TabularHysteretic": "hysteretic-tabular",
    "Distributed": "distributed",
    "TabularDistributed": "distributed-tabular",
    "TabularIQL": "iql-tabular",
    "SoftQ": "soft-q",
    "PR2Q": "pr2-q",
    "RommeoQ": "rommeo-q",
    "RommeoQEmpirical": "rommeo-q-emp",
    "RommeoQThesis": "rommeo-q-thesis",
    "BalancingQ": "balancing-q",
    "ProbabilisticBalancingQ": "balancing-q-probabilistic",
    "GR2Q": "gr2-q",
    "GR2QMixture": "gr2-q-mixture",
    "NashQ": "nash-q",
    "FriendQ": "friend-q",
    "FoeQ": "foe-q",
    "JointActionLearner": "jal",
    "WoLFPHC": "wolf-phc",
    "FMQ": "fmq",
    "DDPG": "ddpg",
    "DDPGOM": "ddpg-om",
    "MADDPG": "maddpg",
    "MASQL": "masql",
    "SAC": "sac",
    "SACDiscrete": "sac-discrete",
    "PR2AC": "pr2-ac",
    "ROMMEOAC": "rommeo-ac",
    "BalancingAC": "balancing-ac",
}


def from_old_class(name: str, fields: Mapping[str, Any]) -> Algorithm | None:
    """The algorithm that earlier code saved as `module:Class` with these fields; None for another name."""
    module, _, kind = name.partition(":")
    if module.split(".")[0] != "baselines" or kind not in OLD_CLASSES:
        return None
    return replaced(lookup(OLD_CLASSES[kind]), **fields)
