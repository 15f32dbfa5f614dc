"""Task families, one file or one folder each."""
