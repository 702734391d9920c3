"""Figures with claims and verdicts: what `experiments/reproduce_*.py` scripts are made of (`script.main`)."""
