"""QPLEX and its relatives on matrix games that no monotone joint value fits."""

from experiments.claims.qplex import budget, core_idea, curves, tables

CLAIMS = (*curves.CLAIMS, *tables.CLAIMS, *core_idea.CLAIMS, *budget.CLAIMS)
