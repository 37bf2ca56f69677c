"""The function for Spark in docs/howto/ray.md, called with pandas Series, without Spark (`make ray`)."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import SentenceTransformer
from tests.support import ROOT, assert_same_bits
from tests.support.docs import blocks

pytestmark = pytest.mark.ray


def test_the_pandas_udf_of_the_docs_gives_each_text_its_vector():
    pandas = pytest.importorskip("pandas")
    page = blocks(ROOT / "docs" / "howto" / "ray.md")
    (code,) = [b.code for b in page if b.comment == ("run by", "tests/cluster/test_spark.py")]
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102
    texts = pandas.Series(["A cat.", "", "Interest rates rose again."], index=[7, 3, 5])
    first, second = names["embed"](iter([texts, texts[:1]]))
    model = SentenceTransformer("all-MiniLM-L6-v2")
    assert_same_bits(np.stack(first.to_list()), model.encode(texts.tolist()))
    assert list(first.index) == [7, 3, 5]
    assert_same_bits(np.stack(second.to_list()), model.encode(["A cat."]))
