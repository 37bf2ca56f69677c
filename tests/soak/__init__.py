"""Ten minutes of load, hostile clients and killed processes. `make soak`."""
