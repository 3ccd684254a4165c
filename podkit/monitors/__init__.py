"""Threads that look after sessions and containers."""
