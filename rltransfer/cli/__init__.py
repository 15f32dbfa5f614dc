"""The command line: parses words, calls the library, prints results."""
