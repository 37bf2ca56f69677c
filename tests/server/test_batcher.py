"""The queue before the model: who is computed with whom, in which order, and what ends it."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

pytest.importorskip("starlette")

from simdformer.server import batcher
from simdformer.server.batcher import Batcher, QueueFullError, StoppedError


class Lengths:
    """A model that counts characters; it waits at its first pass until it is told to go on."""

    def __init__(self):
        self.passes = []
        self.started, self.go_on = threading.Event(), threading.Event()

    def size(self, item):
        return len(item)

    def run(self, items, group):
        self.passes.append((group, list(items)))
        self.started.set()
        assert self.go_on.wait(60)
        if "fail" in items:
            raise MemoryError
        return np.array([[len(item)] for item in items], np.float32), [1] * len(items)


def run(script, max_queue=100):
    """What script(queue, model) makes of a queue whose model is busy with the item "first"."""
    model = Lengths()

    async def main():
        queue = Batcher(max_queue)
        first = queue.submit(model, ["first"])
        try:
            return await script(queue, model)
        finally:
            model.go_on.set()
            await asyncio.wait([first])

    return asyncio.run(main()), model


def test_what_waits_together_is_one_pass():
    async def script(queue, model):
        futures = [queue.submit(model, ["a", "bb"]), queue.submit(model, ["ccc"])]
        model.go_on.set()
        return await asyncio.gather(*futures)

    (one, two), model = run(script)
    assert model.passes[1:] == [(None, ["a", "bb", "ccc"])]
    assert one.rows.tolist() == [[1], [2]]
    assert two.rows.tolist() == [[3]]
    assert (one.num_tokens, two.num_tokens) == (2, 1)


def test_groups_and_models_do_not_mix():
    other = Lengths()
    other.go_on.set()

    async def script(queue, model):
        futures = [queue.submit(model, ["a"], "x"), queue.submit(model, ["b"], "y")]
        futures += [queue.submit(other, ["c"], "x"), queue.submit(model, ["d"], "x")]
        model.go_on.set()
        return await asyncio.gather(*futures)

    _, model = run(script)
    assert model.passes[1:] == [("x", ["a", "d"]), ("y", ["b"])]
    assert other.passes == [("x", ["c"])]


def test_the_first_comes_first_and_a_long_request_takes_turns(monkeypatch):
    monkeypatch.setattr(batcher, "_PASS_CHARACTERS", 2 * (1 + batcher._ITEM_CHARACTERS))

    async def script(queue, model):
        futures = [queue.submit(model, items) for items in ("aaaaa", "b", "c")]
        model.go_on.set()
        return await asyncio.gather(*futures)

    (long, *_), model = run(script)
    assert [items for _, items in model.passes[1:]] == [
        ["a", "a"],
        ["b", "c"],
        ["a", "a"],
        ["a"],
    ]
    assert long.rows.shape == (5, 1)
    assert long.num_tokens == 5


def test_what_is_longer_than_a_pass_is_a_pass():
    async def script(queue, model):
        model.go_on.set()
        return await queue.submit(model, ["a" * 100_000, "b"])

    output, model = run(script)
    assert output.rows.tolist() == [[100_000], [1]]
    assert len(model.passes) == 3


def test_the_queue_is_bounded_by_what_waits():
    async def script(queue, model):
        queue.submit(model, ["a"] * 3).add_done_callback(lambda future: future.exception())
        with pytest.raises(QueueFullError):
            queue.submit(model, ["b"] * 2)
        last = queue.submit(model, ["c"])
        model.go_on.set()
        return await last

    output, model = run(script, max_queue=4)
    assert output.rows.tolist() == [[1]]
    assert model.passes[1:] == [(None, ["a", "a", "a", "c"])]


def test_a_cancelled_request_makes_room():
    async def script(queue, model):
        waiting = queue.submit(model, ["a"] * 3)
        waiting.cancel()
        await asyncio.sleep(0)
        assert queue.num_waiting == 0
        model.go_on.set()
        return await queue.submit(model, ["b"] * 3)

    _, model = run(script, max_queue=3)
    assert model.passes[1:] == [(None, ["b"] * 3)]


def test_the_rest_of_a_cancelled_request_is_not_computed(monkeypatch):
    monkeypatch.setattr(batcher, "_PASS_CHARACTERS", 1)

    async def script(queue, model):
        long = queue.submit(model, ["a", "b", "c"])
        model.go_on.set()
        while len(model.passes) < 2:
            await asyncio.sleep(0)
        long.cancel()
        return await queue.submit(model, ["d"])

    output, model = run(script)
    assert output.rows.tolist() == [[1]]
    assert len(model.passes) < 5


def test_what_the_model_raises_reaches_those_in_the_pass_alone():
    async def script(queue, model):
        futures = [queue.submit(model, ["fail"]), queue.submit(model, ["a"])]
        later = queue.submit(model, ["b"], "later")
        model.go_on.set()
        return await asyncio.gather(*futures, later, return_exceptions=True)

    (one, two, later), _ = run(script)
    assert isinstance(one, MemoryError)
    assert isinstance(two, MemoryError)
    assert later.rows.tolist() == [[1]]


def test_stopping_finishes_the_pass_and_refuses_the_rest():
    async def script(queue, model):
        await asyncio.to_thread(model.started.wait, 60)
        waiting = queue.submit(model, ["a"])
        queue.stop()
        with pytest.raises(StoppedError):
            queue.submit(model, ["b"])
        with pytest.raises(StoppedError):
            await waiting

    _, model = run(script)
    assert model.passes == [(None, ["first"])]


def test_after_stopping_the_rest_of_a_long_request_is_refused(monkeypatch):
    monkeypatch.setattr(batcher, "_PASS_CHARACTERS", 1)
    model = Lengths()

    async def main():
        queue = Batcher(10)
        long = queue.submit(model, ["a", "b"])
        await asyncio.to_thread(model.started.wait, 60)
        queue.stop()
        model.go_on.set()
        with pytest.raises(StoppedError):
            await long

    asyncio.run(main())
    assert model.passes == [(None, ["a"])]
