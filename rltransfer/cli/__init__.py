"""The shell: parses what was typed, calls, prints."""
