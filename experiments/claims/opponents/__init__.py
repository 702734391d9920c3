"""Opponent modelling: every figure of the thesis's chapter 3 and of ROMMEO."""

from experiments.claims.opponents import climbing, differential, theory, thesis_games

CLAIMS = (*thesis_games.CLAIMS, *theory.CLAIMS, *climbing.CLAIMS, *differential.CLAIMS)
