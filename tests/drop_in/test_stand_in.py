"""as_sentence_transformers. Each test runs in a new process, because the call changes imports."""

from __future__ import annotations

import pytest

from tests.pipeline.test_multi_vector_encoder import write_colbert
from tests.support import output_of
from tests.support.model_fixtures import write_cross_encoder, write_model
from tests.support.tiny_sparse import write_sparse

# Makes both packages impossible to import, even if they are installed.
WITHOUT = """
import sys
from importlib.abc import MetaPathFinder
class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "sentence_transformers"):
            raise ModuleNotFoundError(name)
import importlib.util, importlib.machinery
real = importlib.util.find_spec
hidden = ("torch", "sentence_transformers")
importlib.util.find_spec = lambda name, *a: None if name.partition(".")[0] in hidden else real(name, *a)
sys.meta_path.insert(0, Hidden())
"""
BEGIN = "import sys, simdformer\nsimdformer.as_sentence_transformers()\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


def output(code, *arguments, begin=WITHOUT + BEGIN):
    return output_of(begin + code, *arguments)


def test_nothing_changes_before_the_call():
    assert (
        output("print('sentence_transformers' in sys.modules)", begin="import sys, simdformer\n")
        == "False"
    )


def test_the_package_has_our_classes():
    code = """
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.cross_encoder import CrossEncoder as C
from sentence_transformers.sentence_transformer import SentenceTransformer as S
import sentence_transformers as st
assert issubclass(SentenceTransformer, simdformer.SentenceTransformer)
assert issubclass(CrossEncoder, simdformer.CrossEncoder)
assert C is CrossEncoder is st.CrossEncoder and S is SentenceTransformer
from sentence_transformers.sparse_encoder import SparseEncoder
from sentence_transformers.multi_vector_encoder import MultiVectorEncoder
assert issubclass(SparseEncoder, simdformer.SparseEncoder) and SparseEncoder is st.SparseEncoder
assert issubclass(MultiVectorEncoder, simdformer.MultiVectorEncoder)
assert MultiVectorEncoder is st.MultiVectorEncoder
print(SentenceTransformer, st.__version__.split(".")[0], "torch" in sys.modules)
"""
    assert output(code) == "<class 'sentence_transformers.SentenceTransformer'> 6 False"


def test_its_vectors_and_scores_have_our_bits(folder, tmp_path):
    code = """
from sentence_transformers import CrossEncoder, SentenceTransformer
vector = simdformer.SentenceTransformer(sys.argv[1]).encode("abc")
model = SentenceTransformer(sys.argv[1])
assert vector.tobytes() == model.encode("abc").tobytes()
assert simdformer.CrossEncoder(sys.argv[2]).predict(("a", "b")) == CrossEncoder(sys.argv[2]).predict(("a", "b"))
print(type(model.encode(["a"], convert_to_numpy=False)[0]).__name__, type(model.similarity(vector, vector)).__name__)
"""
    assert output(code, folder, write_cross_encoder(tmp_path / "m")) == "ndarray ndarray"


def test_sparse_weights_and_token_vectors_have_our_bits(tmp_path):
    code = """
from sentence_transformers import MultiVectorEncoder, SparseEncoder
ours = simdformer.SparseEncoder(sys.argv[1]).encode("abc")
assert ours.toarray().tobytes() == SparseEncoder(sys.argv[1]).encode("abc").toarray().tobytes()
ours = simdformer.MultiVectorEncoder(sys.argv[2]).encode_query("abc")
assert ours.tobytes() == MultiVectorEncoder(sys.argv[2]).encode_query("abc").tobytes()
print("right")
"""
    folders = write_sparse(tmp_path / "sparse"), write_colbert(tmp_path / "colbert")
    assert output(code, *folders) == "right"


def test_utilities_come_with_it():
    code = """
from sentence_transformers import SimilarityFunction, quantize_embeddings, util
from sentence_transformers.util import cos_sim, semantic_search
print(util.cos_sim([1.0], [1.0]).tolist(), SimilarityFunction.COSINE.value)
"""
    assert output(code) == "[[1.0]] cosine"


def test_names_that_only_the_package_has_are_refused():
    code = """
import sentence_transformers
for name in ("LoggingHandler", "losses"):
    try:
        getattr(sentence_transformers, name)
    except AttributeError as error:
        print(error)
try:
    from sentence_transformers import InputExample
except ImportError as error:
    print(error)
try:
    import sentence_transformers.losses
except ImportError as error:
    print(type(error).__name__)
"""
    first, second, third, fourth = output(code).splitlines()
    assert "has no LoggingHandler" in first
    assert "has no losses" in second
    assert "InputExample" in third
    assert fourth == "ModuleNotFoundError"


def test_a_second_call_changes_nothing():
    code = "first = sys.modules['sentence_transformers']; print(simdformer.as_sentence_transformers() is first)"
    assert output(code) == "True"


def test_copies_have_the_same_class_in_this_and_other_processes(folder):
    code = """
import copy, pickle, subprocess
from sentence_transformers import SentenceTransformer
class Own(SentenceTransformer): pass
for kind in (SentenceTransformer, Own):
    model = kind(sys.argv[1])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is kind, other
model = SentenceTransformer(sys.argv[1])
elsewhere = "import pickle, sys; print(type(pickle.load(sys.stdin.buffer)))"
print(subprocess.run([sys.executable, "-c", elsewhere], input=pickle.dumps(model), capture_output=True, check=True).stdout.decode().strip())
print(model.encode(["a", "b"], device=["cpu"]).shape)
"""
    kind, shape = output(code, folder).splitlines()
    assert kind == "<class 'sentence_transformers.SentenceTransformer'>"
    assert shape == "(2, 20)"


def test_an_earlier_import_causes_a_warning():
    code = """
import sys, types, warnings
sys.modules["sentence_transformers"] = types.ModuleType("sentence_transformers")
import simdformer
with warnings.catch_warnings(record=True) as caught:
    simdformer.as_sentence_transformers()
print(caught[0].message, caught[0].filename)
"""
    printed = output(code, begin="")
    assert printed.startswith("sentence_transformers was imported before")
    assert printed.endswith("<string>")
