"""Students with default options, of any teacher."""
