"""One student for five games."""
