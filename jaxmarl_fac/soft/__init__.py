"""Control as inference: soft backups of an agent that models one other, soft options, and methods on them."""
