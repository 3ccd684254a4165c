"""Paths, time, files of the host: what everything else stands on."""
