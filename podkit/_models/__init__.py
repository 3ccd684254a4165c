"""The models that all layers share, and the identity of containers."""
