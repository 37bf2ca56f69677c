"""The work for a single text is split for more threads than it has heads: in every phase of a layer each
thread has a share, and no share is much larger than the mean."""

from __future__ import annotations

import pytest

from simdformer import _core

# The largest share divided by the mean of all threads.
_EVEN = 1.25
# Hidden size, inner size, heads: MiniLM's, BERT-base's and BERT-large's.
_SIZES = [(384, 1536, 12), (768, 3072, 12), (1024, 4096, 16)]


def excess(shares, team_size):
    return max(shares) * team_size / sum(shares)


@pytest.mark.parametrize("team_size", [2, 16, 64])
@pytest.mark.parametrize(("hidden", "inner", "heads"), _SIZES)
def test_every_phase_of_512_tokens_keeps_all_threads_busy(isa, hidden, inner, heads, team_size):
    _, panel = _core.KernelTable(isa).gemm_tile
    products = {"qkv": 3 * hidden, "output": hidden, "up": inner, "down": hidden}
    phases = {
        name: _core.product_shares(512, -(-columns // panel), team_size)
        for name, columns in products.items()
    }
    phases["attention"] = _core.row_shares(heads, 512, team_size)
    phases["rotation"] = _core.row_shares(2 * heads, 512, team_size)
    for name, shares in phases.items():
        assert len(shares) >= team_size, name
        assert excess(shares, team_size) <= _EVEN, (name, shares)


@pytest.mark.parametrize("items", [1, 3, 12, 13, 64, 100])
@pytest.mark.parametrize("rows", [0, 1, 7, 512])
@pytest.mark.parametrize("team_size", [1, 2, 3, 16, 64])
def test_row_shares_cover_every_row_once(items, rows, team_size):
    shares = _core.row_shares(items, rows, team_size)
    assert len(shares) == team_size
    assert sum(shares) == items * rows


@pytest.mark.parametrize("rows", [1, 14, 31, 512, 4096])
@pytest.mark.parametrize("panels", [1, 3, 8, 24, 100])
@pytest.mark.parametrize("team_size", [1, 2, 3, 16, 64])
def test_product_shares_cover_every_row_and_panel_once(rows, panels, team_size):
    assert sum(_core.product_shares(rows, panels, team_size)) == rows * panels
