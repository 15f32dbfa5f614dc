"""Born-again chains of students."""
