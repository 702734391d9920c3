"""Logical Team Q-learning (seed slides 000; Cassano and Sayed 2021): its games, its peers, its operators."""

from experiments.claims.ltql import line, matrix, operators, pursuit

CLAIMS = (*matrix.CLAIMS, *line.CLAIMS, *operators.CLAIMS, *pursuit.CLAIMS)
