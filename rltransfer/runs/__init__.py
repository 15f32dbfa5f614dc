"""Training runs, and what is done with them."""
