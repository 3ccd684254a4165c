"""Engines: the seam, and what is behind it."""
