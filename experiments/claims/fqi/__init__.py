"""Factored fitted Q-iteration (a lecture on it; Wang et al., 2021): every theorem, checked exactly."""

from experiments.claims.fqi import closed_form, deep, divergence, igm, stability

CLAIMS = (*closed_form.CLAIMS, *stability.CLAIMS, *divergence.CLAIMS, *igm.CLAIMS, *deep.CLAIMS)
