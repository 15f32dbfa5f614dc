"""How far up the layers of one game serve another."""
