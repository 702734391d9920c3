"""Control as inference: soft backups of an agent that models one other, and methods built on them."""
