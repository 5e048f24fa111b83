"""Pure functions from the store's data frame to tables."""
