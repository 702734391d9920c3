"""QTRAN (Son et al., 2019): every table and figure of the paper."""

from experiments.claims.qtran import (
    game_3x3,
    game_21x21,
    overview,
    predator_prey,
    random_games,
    speed,
    squeeze,
    state_value,
    theory,
)

CLAIMS = (
    *game_3x3.CLAIMS,
    *theory.CLAIMS,
    *state_value.CLAIMS,
    *game_21x21.CLAIMS,
    *random_games.CLAIMS,
    *overview.CLAIMS,
    *squeeze.CLAIMS,
    *predator_prey.CLAIMS,
    *speed.CLAIMS,
    *squeeze.DRAWINGS,
    *predator_prey.DRAWINGS,
)
