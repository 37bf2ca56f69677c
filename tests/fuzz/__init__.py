"""Random damage, with seeds: what a run finds can be run again. `make fuzz`."""
