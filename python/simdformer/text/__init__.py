# SPDX-License-Identifier: Apache-2.0
"""Processing of texts before the model: checks (inputs.py), token ids (tokenizer.py, tokenizer_files.py) and
batches (batching.py)."""
