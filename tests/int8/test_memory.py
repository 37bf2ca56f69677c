"""The peak memory of loading, and the memory afterwards, follow from the requested model."""

from __future__ import annotations

import os

import pytest

from simdformer import quantize_model
from tests.support import output_of
from tests.support.model_fixtures import config_json, write_model
from tests.support.tiny_bert import Config, random_weights

pytestmark = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps what is freed"
)

# 170 MB of layers in float32, which must never be in memory together with their quantized form.
LARGE = Config(hidden_size=768, num_heads=12, intermediate_size=3072, num_layers=6)
MB = 2**20
# Bytes per weight: s8 with a scale per group of 128.
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1 + 4 / 128}

LOADED = """
import gc
from simdformer import SentenceTransformer

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))

first = SentenceTransformer({small!r}, compute_type={compute_type!r})
first.encode("a")
before = status("VmRSS")
loaded = SentenceTransformer({model!r}, compute_type={compute_type!r})
peak = status("VmHWM")
gc.collect()
print(peak - before, status("VmRSS") - before)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A large model, and a small one that loads imports and threads first."""
    root = tmp_path_factory.mktemp("memory")
    files = {
        "config.json": config_json(LARGE),
        "1_Pooling/config.json": {
            "word_embedding_dimension": 768,
            "pooling_mode_mean_tokens": True,
        },
    }
    large = write_model(root / "large", weights=random_weights(LARGE), files=files)
    return large, write_model(root / "small")


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
def test_loading_needs_little_more_memory_than_the_model(folders, compute_type):
    large, small = map(str, folders)
    code = LOADED.format(small=small, model=large, compute_type=compute_type)
    peak, resident = map(int, output_of(code).split())
    matrices = 12 * LARGE.hidden_size**2 * LARGE.num_layers
    largest = 4 * LARGE.hidden_size * LARGE.intermediate_size
    assert peak <= resident + 2 * largest + 64 * MB
    # Huge pages of 2 MB depend on what else the machine does.
    assert resident <= BYTES[compute_type] * matrices + 52 * MB


# A table of 154 MB in float32, 39 MB in int8, as in models of many languages.
MANY_WORDS = Config(vocab_size=150_000, hidden_size=256, num_heads=4, intermediate_size=512)


def test_a_quantized_model_with_many_words_takes_little_more_memory_than_its_folder(
    folders, tmp_path
):
    files = {
        "config.json": config_json(MANY_WORDS),
        "1_Pooling/config.json": {
            "word_embedding_dimension": 256,
            "pooling_mode_mean_tokens": True,
        },
    }
    wide = write_model(tmp_path / "wide", weights=random_weights(MANY_WORDS), files=files)
    quantize_model(wide, tmp_path / "saved")
    size = sum(path.stat().st_size for path in (tmp_path / "saved").rglob("*") if path.is_file())
    code = LOADED.format(small=str(folders[1]), model=str(tmp_path / "saved"), compute_type="int8")
    _, resident = map(int, output_of(code).split())
    assert resident <= 1.3 * size + 60 * MB
