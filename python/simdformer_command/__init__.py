# SPDX-License-Identifier: Apache-2.0
# PYTHON_ARGCOMPLETE_OK
"""The console script `simdformer`. It is outside the package, so that one line can say why the package cannot be
imported: a wrong SIMDFORMER_ISA, or a damaged installation."""

import sys
from typing import NoReturn


def entry_point() -> NoReturn:
    """Run the command line as a process of its own."""
    try:
        from simdformer.cli import entry_point as run
    except ImportError as error:
        sys.exit(f"simdformer: error: {' '.join(str(error).split())}")
    run()
