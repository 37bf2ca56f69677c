"""Libraries that use sentence-transformers, as installed, with our classes instead."""

from __future__ import annotations

import pytest

TEXTS = [
    "A cat sleeps on the warm windowsill.",
    "Interest rates rose by half a point.",
    "The kitten chased a ball of wool.",
    "Central banks fight inflation.",
]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if "ecosystem" in item.path.parts:
            item.add_marker("ecosystem")


@pytest.fixture(scope="session", autouse=True)
def stand_in():
    import simdformer

    return simdformer.as_sentence_transformers()


@pytest.fixture(scope="session")
def folder():
    """The folder of the default model. Each library loads it by its path."""
    from simdformer.folder.resolve import resolve_model

    return str(resolve_model("all-MiniLM-L6-v2"))


@pytest.fixture(scope="session")
def ours(folder):
    """The model whose vectors are the expected ones."""
    from simdformer import SentenceTransformer

    return SentenceTransformer(folder)


@pytest.fixture(scope="session")
def model(folder, stand_in):
    """The model that is passed to a library."""
    return stand_in.SentenceTransformer(folder)


@pytest.fixture(scope="session")
def scorer_folder(tmp_path_factory):
    from tests.support.model_fixtures import write_cross_encoder

    return str(write_cross_encoder(tmp_path_factory.mktemp("models") / "scorer"))
