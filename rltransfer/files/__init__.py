"""How things reach the disk."""
