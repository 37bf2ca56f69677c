# SPDX-License-Identifier: Apache-2.0
"""A model's folder: found by name (resolve.py), its parts read (modules.py), the whole loaded
(loading.py), a new one written (new_folder.py)."""
