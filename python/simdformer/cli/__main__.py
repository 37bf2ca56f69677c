# SPDX-License-Identifier: Apache-2.0
"""`python -m simdformer.cli` is the `simdformer` command."""

from simdformer.cli import entry_point

entry_point()
