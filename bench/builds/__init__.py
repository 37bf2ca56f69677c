"""Two installed copies of simdformer held against each other; compare_builds.py is the way in."""
