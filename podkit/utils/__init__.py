"""Paths, time and files of the host, below everything else."""
