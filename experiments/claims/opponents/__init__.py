"""Opponent modelling: every figure of the thesis's chapter 3, of ROMMEO, and MAVEN's matrix game."""

from experiments.claims.opponents import climbing, differential, maven, theory, thesis_games

CLAIMS = (*thesis_games.CLAIMS, *theory.CLAIMS, *climbing.CLAIMS, *differential.CLAIMS, *maven.CLAIMS)
