"""Control as inference: soft backups of an agent that reasons about one other, and what is built on them."""
