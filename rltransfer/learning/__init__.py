"""What a method is, and what steps its weights."""
