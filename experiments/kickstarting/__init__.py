"""Students that begin with a teacher."""
