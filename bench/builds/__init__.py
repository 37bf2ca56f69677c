"""Comparison of two installed copies of simdformer. The command is compare_builds.py."""
