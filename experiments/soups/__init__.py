"""Pictures of the soups."""
