# SPDX-License-Identifier: Apache-2.0
"""Model folders: find a folder by name (resolve.py), read its files (modules.py, module_files.py and the
settings), open it (model_folder.py), load it (loading.py), run it (steps.py, chain.py), and write a new one
(new_folder.py)."""
