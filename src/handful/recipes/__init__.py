"""Plain functions that compose stages into a classifier."""
