"""Hidden state: filters, bounds on the evidence, and public beliefs, from the thesis's chapter 5."""

from experiments.claims.belief import bounds, cards, errata, exact, filters, tiger

CLAIMS = (*exact.CLAIMS, *cards.CLAIMS, *filters.CLAIMS, *bounds.CLAIMS, *errata.CLAIMS, *tiger.CLAIMS)
