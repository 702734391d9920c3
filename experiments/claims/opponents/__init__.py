"""Opponent modelling, policy gradients and MAVEN: figures of the thesis's chapters 2 and 3, and of ROMMEO."""

from experiments.claims.opponents import (
    climbing,
    differential,
    gradients,
    maven,
    overview,
    theory,
    thesis_games,
)

CLAIMS = (
    *thesis_games.CLAIMS,
    *theory.CLAIMS,
    *climbing.CLAIMS,
    *differential.CLAIMS,
    *maven.CLAIMS,
    *gradients.CLAIMS,
    *overview.CLAIMS,
)
