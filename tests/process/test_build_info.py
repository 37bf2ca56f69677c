"""show_config reports what is in use, and the package imports nothing before it is needed."""

from __future__ import annotations

import json

import pytest

import simdformer
from simdformer import _core, show_config
from tests.support import output_of


def test_the_dict_contains_the_values_of_the_native_module():
    config = show_config("dicts")
    assert config["version"] == simdformer.__version__
    assert config["isa"]["active"] == _core.active_isa()
    assert config["isa"]["available"] == _core.available_isas()
    assert config["threads"] == {
        "count": _core.num_threads(),
        "source": _core.num_threads_source(),
        "provider": _core.thread_provider(),
    }
    assert config["auto_compute_type"] == (
        "float32" if _core.active_isa() in ("generic", "avx512") else "int8"
    )
    assert config["compiler"] == _core.compiler()
    json.dumps(config)


def test_the_same_is_printed(capsys):
    assert show_config() is None
    printed = capsys.readouterr().out
    for said in (simdformer.__version__, *_core.available_isas(), _core.compiler()):
        assert said in printed


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="unknown mode 'xml'; known: stdout, dicts"):
        show_config("xml")


def test_importing_the_package_imports_neither_numpy_nor_tokenizers():
    code = "import sys, simdformer\nprint({'numpy', 'tokenizers'} & set(sys.modules))"
    assert output_of(code) == "set()"


def test_loading_the_class_imports_nothing_heavy():
    code = (
        "import sys\nfrom simdformer import SentenceTransformer\n"
        "print({'torch', 'transformers', 'huggingface_hub', 'tqdm'} & set(sys.modules))"
    )
    assert output_of(code) == "set()"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'simdformer' has no attribute 'Sentence'"):
        simdformer.Sentence  # noqa: B018


def test_all_public_names_are_listed():
    assert set(simdformer.__all__) <= set(dir(simdformer))
