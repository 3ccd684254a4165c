"""Engines: the seam and its implementations."""
