"""as_sentence_transformers with the installed package: other names come from it, and results are tensors."""

from __future__ import annotations

import pytest

from tests.pipeline.test_multi_vector_encoder import write_colbert
from tests.support import output_of
from tests.support.model_fixtures import write_cross_encoder, write_model
from tests.support.tiny_sparse import write_sparse

pytestmark = pytest.mark.parity

BEGIN = """
import sys, simdformer
simdformer.as_sentence_transformers()
import numpy as np
"""


@pytest.fixture(autouse=True)
def _installed():
    pytest.importorskip("sentence_transformers")


def test_no_pytorch_is_imported_for_our_classes(tmp_path):
    code = """
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu", trust_remote_code=False)
print(model.encode(["a", "b"]).shape, "torch" in sys.modules)
"""
    assert output_of(BEGIN + code, write_model(tmp_path / "m")) == "(2, 20) False"


def test_all_other_names_are_the_packages():
    code = """
from sentence_transformers import InputExample, SentenceTransformer, losses, models, util
from sentence_transformers.evaluation import TripletEvaluator
from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer
from sentence_transformers.cross_encoder.model import CrossEncoder as Real
import torch
assert issubclass(CrossEncoder, simdformer.CrossEncoder) and Real is not CrossEncoder
print(type(util.cos_sim([[1.0]], [[1.0]])).__name__, InputExample.__module__, losses.CosineSimilarityLoss.__name__)
"""
    assert output_of(BEGIN + code) == (
        "Tensor sentence_transformers.sentence_transformer.readers.input_example CosineSimilarityLoss"
    )


def test_results_have_the_packages_types(tmp_path):
    code = """
from sentence_transformers import CrossEncoder, SentenceTransformer
import torch
model = SentenceTransformer(sys.argv[1])
texts = ["abc", "d"]
expected = simdformer.SentenceTransformer(sys.argv[1]).encode(texts)
rows = model.encode(texts, convert_to_numpy=False)
assert isinstance(rows, list) and torch.equal(torch.stack(rows), torch.from_numpy(expected))
assert isinstance(model.encode(texts, output_value="token_embeddings")[0], torch.Tensor)
found = model.encode("abc", output_value=None)
assert isinstance(found["input_ids"], torch.Tensor) and found["modality"] == "text"
assert isinstance(model.similarity(expected, expected), torch.Tensor)
assert isinstance(model.preprocess(texts)["input_ids"], torch.Tensor)
assert isinstance(model.encode(texts), np.ndarray)
scorer = CrossEncoder(sys.argv[2])
assert isinstance(scorer.predict([("a", "b")], convert_to_numpy=False)[0], torch.Tensor)
print("right")
"""
    folders = write_model(tmp_path / "m"), write_cross_encoder(tmp_path / "n")
    assert output_of(BEGIN + code, *folders) == "right"


def test_sparse_weights_and_token_vectors_are_tensors(tmp_path):
    code = """
from sentence_transformers import MultiVectorEncoder, SparseEncoder
import torch
model = SparseEncoder(sys.argv[1])
rows = model.encode(["abc", "d"])
assert rows.layout == torch.sparse_coo and rows.shape[0] == 2
expected = simdformer.SparseEncoder(sys.argv[1]).encode(["abc", "d"]).toarray()
assert torch.equal(rows.to_dense(), torch.from_numpy(expected))
assert isinstance(model.similarity(rows, rows), torch.Tensor) and len(model.decode(rows)) == 2
model = MultiVectorEncoder(sys.argv[2])
rows = model.encode_query(["abc", "d"])
assert all(isinstance(row, torch.Tensor) for row in rows)
assert isinstance(model.encode_query("abc", convert_to_numpy=True), np.ndarray)
assert isinstance(model.similarity(rows, rows), torch.Tensor)
print("right")
"""
    folders = write_sparse(tmp_path / "sparse"), write_colbert(tmp_path / "colbert")
    assert output_of(BEGIN + code, *folders) == "right"


def test_the_packages_evaluators_take_our_model(tmp_path):
    code = """
from sentence_transformers import SentenceTransformer
from sentence_transformers.evaluation import TripletEvaluator
print(TripletEvaluator(["cab"], ["cab"], ["zz"])(SentenceTransformer(sys.argv[1])))
"""
    assert "1.0" in output_of(BEGIN + code, write_model(tmp_path / "m"))
