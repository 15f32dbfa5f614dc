"""Which game helps which, and the best sources for a budget."""
