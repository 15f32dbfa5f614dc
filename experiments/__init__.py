"""Which runs reproduce which paper, and what came out."""
