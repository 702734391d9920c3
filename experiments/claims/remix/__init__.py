"""ReMIX (Mei et al., 2023) and its relatives on DCG's predator-prey and on SMAX."""

from experiments.claims.remix import smax, stag_hunt

CLAIMS = (*stag_hunt.CLAIMS, *smax.CLAIMS)
