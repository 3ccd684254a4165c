"""podkit beside the plain Docker SDK: figures, not tests; see `__main__.py`."""
