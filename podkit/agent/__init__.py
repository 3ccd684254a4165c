"""How commands and files get into a container. Internal as a whole."""
