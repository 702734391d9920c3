"""ReMIX (Mei et al., 2023) and its relatives on DCG's predator-prey and on SMAX, and its theory."""

from experiments.claims.remix import smax, stag_hunt, theory

CLAIMS = (*stag_hunt.CLAIMS, *smax.CLAIMS, *theory.CLAIMS)
