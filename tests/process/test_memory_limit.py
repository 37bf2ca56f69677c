"""The address space is exhausted, during tokenizing and during computing."""

from __future__ import annotations

import pytest

from tests.support import output_of
from tests.support.model_fixtures import write_model

LIMITED = """
import resource, sys, warnings
from pathlib import Path
from simdformer import SentenceTransformer

warnings.simplefilter("ignore")
model = SentenceTransformer(sys.argv[1], num_threads=2)
texts = ["the quick brown fox jumps over the lazy dog " * 60] * 64
expected = model.encode(texts)  # threads have started
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20, -1))
try:
    model.encode(texts)
except MemoryError as error:
    print("MemoryError", str(error)[:10])
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print((model.encode(texts) == expected).all())
"""


@pytest.mark.parametrize("megabytes", [1, 10, 30])
def test_memory_that_runs_out_while_tokenizing_is_a_memory_error(tmp_path, megabytes):
    folder = str(write_model(tmp_path / "tiny"))
    assert output_of(LIMITED, folder, str(megabytes)) == "MemoryError tokenizing\nTrue"
