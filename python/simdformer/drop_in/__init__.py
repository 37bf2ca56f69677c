# SPDX-License-Identifier: Apache-2.0
"""The parts that make the public classes drop-in replacements of sentence-transformers': their base classes,
the arguments of constructors, copies, processes, and the methods of a torch module."""
