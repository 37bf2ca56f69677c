"""Random damage with seeds, so that findings are reproducible. `make fuzz`."""
