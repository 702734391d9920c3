"""The papers' hyper-parameters and training steps for each family of environments."""

from typing import Any

#: QTRAN's tables 3 to 5, by family; other families have table 3's. Fields that an algorithm does not have
#: are left out. Where a table is silent (widths and the last epsilon of Gaussian squeeze) the nearest
#: table's value stands. Distributed Q-learning starts at an `initial_value` of 0 where optimal play has no
#: negative return.
FAMILY_SETTINGS: dict[str, dict[str, Any]] = {
    "matrix": {},  # table 3: the classes' own defaults
    "squeeze": {
        "replay_size": 200_000,
        "epsilon_end": 0.1,
        "epsilon_steps": 500_000,
        "initial_value": 0.0,
    },
    "predator-prey": {
        "hidden": (64, 64, 64),
        "joint_hidden": (64, 64),
        "mixer_embed": 64,
        "weight_std": 0.1,  # the release's; the table is silent
        "replay_size": 1_000_000,
        "epsilon_end": 0.1,
        "epsilon_steps": 3_000_000,
        "initial_value": 0.0,
    },
    # Logical Team Q-learning's release; for all algorithms alike, which the release is not.
    "team-mdp": {
        "step_size": 0.025,
        "ratio": 0.4,
        "target_period": 200,
        "epsilon_end": 0.05,
        "epsilon_steps": 190_000,  # epsilon = max(.05, 1 - t / 200,000)
    },
    # Of the suite's own: options that last for ten steps under the prior.
    "options": {"termination_prior": 0.1},
    "pomdp": {},
    "pursuit": {
        "hidden": (50, 50),
        "q_bound": 74 / 75,
        "learning_rate": 1e-5,
        "batch_size": 1024,
        "replay_size": 200_000,
        "learning_starts": 2048,
        "target_period": 50,
        "epsilon_end": 0.05,
        "epsilon_steps": 150_000,
        "initial_value": 0.0,
    },
    # Weighted QMIX's release, for all algorithms but ReMIX alike. There every episode brings one update; here
    # every 200 steps do, which is an episode that takes all its time.
    "stag-hunt": {
        "consumes": "episodes",
        "recurrent": True,
        "hidden": (64,),
        "optimiser": "rmsprop",
        "max_grad_norm": 10.0,
        "batch_size": 32,
        "replay_size": 5000,
        "learning_starts": 6400,  # 32 episodes
        "update_period": 200,
        "target_period": 200,
        "epsilon_end": 0.05,
        "epsilon_steps": 50_000,
        "initial_value": 0.0,
        "hypernet_hidden": (64,),
        "double_q": True,
        "central_factor": 1.0,  # PyMARL2, and so ReMIX, has 1/2
    },
    # JaxMARL's Q-learners on SMAX, but for ReMIX. There 16 environments take 128 steps between 8 updates, and
    # targets are copied after 80; here one environment takes 256 steps for each. Episodes are whole, not cut
    # at 128.
    "smax": {
        "consumes": "episodes",
        "recurrent": True,
        "hidden": (512,),
        "learning_rate": 5e-5,
        "max_grad_norm": 10.0,
        "batch_size": 32,
        "replay_size": 5000,
        "learning_starts": 10_000,
        "update_period": 256,
        "target_period": 80,
        "epsilon_end": 0.05,
        "epsilon_steps": 1_000_000,
        "initial_value": 0.0,
        "mixer_embed": 64,
        "hypernet_hidden": (256,),
    },
}

PQN_IDS = ("pqn-iql", "pqn-vdn", "pqn-qmix", "pqn-qplex")

#: JaxMARL's PQN on MPE (`pqn_vdn_ff_mpe`), with 256 environments and 2,000,000 steps.
_PQN_MPE: dict[str, Any] = {
    "hidden": (256, 256),
    "rollout_length": 16,
    "epochs": 4,
    "minibatches": 16,
    "learning_rate": 5e-4,
    "max_grad_norm": 1.0,
    "gamma": 0.9,
    "td_lambda": 0.3,
    "epsilon_end": 0.1,
    "epsilon_steps": 200_000,
}

#: ReMIX's table 2 and section D.3 (arXiv 2302.05593): batches of 128 of the last 10,000 episodes, a learning
#: rate of .001, lambda = .6, epsilon from .995 to .05 in 100,000 steps, weights in [.1, 1] (the class's own).
#: What it leaves open is PyMARL2's, on which it builds: Adam, a GRU of 64, mixers of 32 and 64. Targets are
#: copied every 200 episodes: here after 200 updates, one for each time limit of the game.
_REMIX: dict[str, Any] = {
    "hidden": (64,),
    "mixer_embed": 32,
    "hypernet_hidden": (64,),
    "optimiser": "adam",
    "learning_rate": 1e-3,
    "batch_size": 128,
    "replay_size": 10_000,
    "target_period": 200,
    "td_lambda": 0.6,
    "central_factor": 0.5,
    "epsilon_start": 0.995,
    "epsilon_end": 0.05,
    "epsilon_steps": 100_000,
}

#: QTRAN as in PyMARL, with which Weighted QMIX and ReMIX compare.
_PYMARLS_QTRAN: dict[str, Any] = {
    "global_state": True,
    "joint_hidden": (64, 64),
    "nopt_weight": 0.1,
    "double_q": True,
}

#: What learns action values from replay, and explores by them alone.
Q_LEARNING_IDS = (
    *("iql", "vdn", "qmix", "qtran-base", "qtran-alt", "qplex", "qatten", "cw-qmix", "ow-qmix", "remix"),
    *("hysteretic", "distributed", "ltql"),
)

#: LTQL's release in the pursuit: all agents act by Boltzmann policies in half of the games, at a temperature
#: of max(.05, .5 (1 - e / 15,000)) after e of 100,000 epochs, and greedily in the other half. Its LTQL,
#: hysteretic Q-learning and IQL do so; QMIX's and QTRAN's temperatures fall to .005, in 25,000 epochs.
_LTQL_EXPLORATION: dict[str, Any] = {
    "boltzmann_share": 0.5,
    "temperature_start": 0.5,
    "temperature_end": 0.05,
    "temperature_steps": 135_000,
    "epsilon_start": 0.0,
    "epsilon_end": 0.0,
}

#: What a family's table says of one algorithm alone: LTQL's release shows no ids in the pursuit, and
#: multiplies each loss by its share of useful samples. ReMIX has its own table, and its text gives CW- and
#: OW-QMIX their alpha on SMAC (section 5.4). DOP, FOP and MAVEN replay episodes, 32 of 5,000 (their
#: releases), where the tables speak of transitions; MAVEN's release has two uniform latents on StarCraft.
#: PQN's rollouts are not divided where agents are recurrent, so that one environment is enough.
ALGORITHM_SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    **{(name, "pursuit"): _LTQL_EXPLORATION for name in Q_LEARNING_IDS},
    ("ltql", "pursuit"): _LTQL_EXPLORATION | {"agent_ids": False, "useful_share": True},
    # 128 episodes before the first update, and an update after each 200 or 100 steps: the time limits.
    ("remix", "stag-hunt"): _REMIX | {"learning_starts": 128 * 200, "update_period": 200},
    ("remix", "smax"): _REMIX | {"learning_starts": 128 * 100, "update_period": 100},
    **{(name, "smax"): {"alpha": 0.5} for name in ("cw-qmix", "ow-qmix")},
    # PyMARL2's Qatten, which has no other release, QPLEX and QTRAN on the games that it plays.
    **{("qatten", family): {"query_per_head": True} for family in ("stag-hunt", "smax")},
    **{("qplex", family): {"kernels": 4, "kernel_hidden": (64,)} for family in ("stag-hunt", "smax")},
    **{
        (name, family): _PYMARLS_QTRAN
        for name in ("qtran-base", "qtran-alt")
        for family in ("stag-hunt", "smax")
    },
    # Neither QTRAN's paper nor its release has double-Q in its baselines.
    **{(name, "predator-prey"): {"double_q": False} for name in ("vdn", "qmix")},
    **{(name, "squeeze"): {"replay_size": 5000} for name in ("dop", "fop", "maven")},
    **{(name, "predator-prey"): {"replay_size": 5000} for name in ("dop", "fop", "maven")},
    ("maven", "smax"): {
        "num_latents": 2,
        "latent_policy": "uniform",
        "recurrent_discriminator": False,
        "discriminator_hidden": (64, 64, 64),
    },
    **{(name, "pursuit"): {"replay_size": 5000, "batch_size": 32} for name in ("dop", "fop", "maven")},
    **{(name, "mpe"): _PQN_MPE for name in PQN_IDS},
    **{(name, family): {"minibatches": 1} for name in PQN_IDS for family in ("stag-hunt", "smax")},
}

#: Training steps: the same tables', of Logical Team Q-learning's finite game, ROMMEO's 200 x 25, and those of
#: Weighted QMIX's stag hunt and JaxMARL's SMAX. Games with options, MPE and Jumanji's games have no paper
#: here: a million. Games from outside have a tenth of that.
FAMILY_ENV_STEPS = {
    "matrix": 20_000,
    "squeeze": 1_000_000,
    "predator-prey": 10_000_000,
    "team-mdp": 100_000,
    "options": 100_000,
    "pomdp": 100_000,
    "differential": 5_000,
    "pursuit": 1_000_000,
    "stag-hunt": 1_000_000,
    "smax": 10_000_000,
    "mpe": 1_000_000,
    "jumanji": 1_000_000,
    "outside": 100_000,
}
