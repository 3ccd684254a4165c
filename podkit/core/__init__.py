"""Models, containers and sessions: everything that knows no engine."""
