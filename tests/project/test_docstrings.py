"""The examples in the docstrings of all public names run."""

from __future__ import annotations

import doctest
import sys

import numpy as np
import pytest

from tests.support.model_fixtures import write_cross_encoder
from tools.check_docstrings import MODULES, public_objects

# Those of simdformer.explain are tested in tests/explain/test_minilm.py; that of simdformer.ray in
# tests/cluster/test_ray.py.
QUICK = [name for name in MODULES if name not in ("simdformer.explain", "simdformer.ray")]


@pytest.mark.parametrize("module", QUICK)
def test_examples_run(module, monkeypatch, tmp_path):
    for other in [each for each in sys.modules if each.startswith("sentence_transformers")]:
        monkeypatch.delitem(sys.modules, other)  # as_sentence_transformers must come first
    monkeypatch.chdir(tmp_path)  # a folder with this name has precedence over the hub
    write_cross_encoder(tmp_path / "cross-encoder" / "ms-marco-MiniLM-L6-v2")
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner()
    for name, thing in public_objects(module):
        home = sys.modules.get(getattr(thing, "__module__", None))
        names = {**vars(home or np), "np": np}
        for example in finder.find(thing, name, module=home, globs=names):
            runner.run(example)
    failed, attempted = runner.summarize(verbose=False)
    assert attempted > 0
    assert failed == 0
