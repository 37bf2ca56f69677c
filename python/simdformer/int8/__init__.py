# SPDX-License-Identifier: Apache-2.0
"""Models in int8: which layers, and at what loss (calibration.py), with rounding fitted to sample texts
(gptq.py), written as a folder (quantize_model.py) in the format of saved.py."""
