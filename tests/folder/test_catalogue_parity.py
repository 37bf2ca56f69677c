"""Folders in the form of published models compared with sentence-transformers, if transformers has the model. Needs
the group parity."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SentenceTransformer
from tests.support.catalogue import CATALOGUE, write_dense_entry
from tests.support.model_fixtures import CLOSE
from tests.support.tiny_models import TEXTS

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

KNOWN = (
    "bert",
    "bert, sentencepiece",
    "gemma3_text",
    "modernbert",
    "mpnet",
    "qwen3",
    "xlm-roberta",
)
ENTRIES = [entry for entry in CATALOGUE["dense"] if entry["family"] in KNOWN]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["model"])
def test_an_embedding_model_is_that_of_sentence_transformers(tmp_path, entry):
    pytest.importorskip("torch")
    theirs = pytest.importorskip("sentence_transformers")
    folder, _ = write_dense_entry(tmp_path / "m", entry)
    reference = theirs.SentenceTransformer(
        str(folder), device="cpu", model_kwargs={"dtype": "float32"}
    )
    ours = SentenceTransformer(folder)
    np.testing.assert_allclose(ours.encode(TEXTS), reference.encode(TEXTS), **CLOSE)
    np.testing.assert_allclose(ours.encode_query(TEXTS), reference.encode_query(TEXTS), **CLOSE)
