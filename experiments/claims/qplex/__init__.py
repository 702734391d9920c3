"""QPLEX and its relatives on matrix games that no monotone joint value fits."""

from experiments.claims.qplex import budget, curves, tables

CLAIMS = (*curves.CLAIMS, *tables.CLAIMS, *budget.CLAIMS)
