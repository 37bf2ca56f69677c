# SPDX-License-Identifier: Apache-2.0
"""Models in int8: which layers, and how well (calibration.py), rounded for a sample of texts (gptq.py),
written as a folder (quantize_model.py) in its format (saved.py)."""
