"""Load, hostile clients and killed processes for ten minutes. `make soak`."""
