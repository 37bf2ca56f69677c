# SPDX-License-Identifier: Apache-2.0
"""A model's folder: found by name (resolve.py), its files read (modules.py, module_files.py, the
settings), opened (model_folder.py), loaded (loading.py) and run (steps.py, chain.py); a new one
written (new_folder.py)."""
