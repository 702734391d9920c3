"""Logical Team Q-learning (Cassano and Sayed, 2021): games, baselines, operators."""

from experiments.claims.ltql import line, matrix, operators, pursuit

CLAIMS = (*matrix.CLAIMS, *line.CLAIMS, *operators.CLAIMS, *pursuit.CLAIMS)
