# SPDX-License-Identifier: Apache-2.0
"""Texts before the model: what is accepted (inputs.py), token ids (tokenizer.py, tokenizer_files.py)
and batches of them (batching.py)."""
