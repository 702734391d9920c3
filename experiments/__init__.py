"""Scripts that train, compare, measure and plot, and the papers' claims that they reproduce."""
