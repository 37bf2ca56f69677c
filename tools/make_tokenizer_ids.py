# SPDX-License-Identifier: Apache-2.0
"""Writes tests/text/tokenizer_ids.json: the token ids that transformers 5 gives for the grid of
tests/support/tokenizer_grid.py. Needs the group parity; run it from the project's root:

    PYTHONPATH=. python tools/make_tokenizer_ids.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import transformers

from tests.support.tokenizer_grid import KINDS, SAMPLE, SAMPLE_PAIR, VARIANTS, write_folder

FILE = Path("tests/text/tokenizer_ids.json")


def ids(kind: str, variant: str) -> list[list[int]] | None:
    """The ids of the text, of the pair, and the pair's token types; None where transformers refuses."""
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), kind, variant)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            pair = tokenizer(*SAMPLE_PAIR)
            zeros = [0] * len(pair["input_ids"])
            types = pair.get("token_type_ids", zeros)
            return [tokenizer(SAMPLE)["input_ids"], pair["input_ids"], types]
        except Exception:  # noqa: BLE001
            return None


def main() -> None:
    transformers.logging.set_verbosity_error()
    groups = []
    for kind in KINDS:
        found: dict[str, list[str]] = {}
        for variant in VARIANTS:
            if (value := ids(kind, variant)) is not None:
                found.setdefault(json.dumps(value), []).append(variant)
        groups += [[kind, variants, json.loads(value)] for value, variants in found.items()]
    rows = ",\n".join(json.dumps(group, separators=(",", ":")) for group in groups)
    FILE.write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
