"""The engine of the suite: it knows no game and no paper."""
