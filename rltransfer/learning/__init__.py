"""What methods and agents are, and how their weights are trained."""
