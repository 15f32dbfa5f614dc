"""A mimic of four games as the start of the fifth."""
