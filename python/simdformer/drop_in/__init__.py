# SPDX-License-Identifier: Apache-2.0
"""What makes the public classes drop-ins for sentence-transformers': their base, the arguments that its
constructors take, copies, processes, and what programs do to a torch module on a CPU."""
