"""The queue before the model: which requests are computed together, in which order, and how they end."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

pytest.importorskip("starlette")

from simdformer.server import passes
from simdformer.server.batcher import Batcher, QueueFullError, StoppedError


class Lengths:
    """A model that counts characters. Its first pass waits until it is released."""

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
    """The result of script(queue, model) for a queue whose model is busy with the item "first"."""
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


def test_waiting_requests_are_computed_in_one_pass():
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


def test_requests_are_served_in_order_and_a_long_one_takes_turns(monkeypatch):
    monkeypatch.setattr(passes, "PASS_CHARACTERS", 2 * (1 + passes.ITEM_CHARACTERS))

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


def test_an_item_longer_than_a_pass_gets_its_own_pass():
    async def script(queue, model):
        model.go_on.set()
        return await queue.submit(model, ["a" * 100_000, "b"])

    output, model = run(script)
    assert output.rows.tolist() == [[100_000], [1]]
    assert len(model.passes) == 3


def test_the_queue_is_bounded_by_the_number_of_waiting_items():
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


def test_a_cancelled_request_frees_its_place():
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
    monkeypatch.setattr(passes, "PASS_CHARACTERS", 1)

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


def test_an_exception_of_the_model_reaches_only_the_request_that_caused_it():
    """The other requests of its pass are computed again without it."""

    async def script(queue, model):
        texts = ["a", "bb", "fail", "ccc", "fail", "d"]
        futures = [queue.submit(model, [text]) for text in texts]
        model.go_on.set()
        return await asyncio.gather(*futures, return_exceptions=True)

    outputs, _ = run(script)
    assert [isinstance(output, MemoryError) for output in outputs] == [
        text == "fail" for text in ("a", "bb", "fail", "ccc", "fail", "d")
    ]
    assert [o.rows.tolist() for o in outputs if not isinstance(o, MemoryError)] == [
        [[1]],
        [[2]],
        [[3]],
        [[1]],
    ]


def test_a_request_that_fails_is_computed_no_further(monkeypatch):
    monkeypatch.setattr(passes, "PASS_CHARACTERS", 1)

    async def script(queue, model):
        future = queue.submit(model, ["fail", "a", "b"])
        model.go_on.set()
        with pytest.raises(MemoryError):
            await future
        await asyncio.sleep(0)
        return queue.num_waiting

    num_waiting, model = run(script)
    assert num_waiting == 0
    assert [items for _, items in model.passes][1:] in ([["fail"]], [["fail"], ["a"]])


def test_the_queue_is_bounded_by_the_expected_time(monkeypatch):
    """After a pass of 2 s for 9 characters, two full passes mean 4 s of waiting."""
    monkeypatch.setattr(passes, "PASS_CHARACTERS", 1 + passes.ITEM_CHARACTERS)
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(passes.time, "perf_counter", lambda: next(clock))

    async def main():
        model, queue = Lengths(), Batcher(100, max_wait=3)
        model.go_on.set()
        await queue.submit(model, ["a"])
        await queue.submit(model, ["a"])  # the first pass is not measured
        model.go_on.clear()
        assert queue.expected_wait() == 0
        accepted = [queue.submit(model, ["b"])]
        assert queue.expected_wait() == 2
        accepted.append(queue.submit(model, ["c" * 50]))  # it gets one pass, then others get theirs
        with pytest.raises(QueueFullError) as refused:
            queue.submit(model, ["d"])
        accepted[1].cancel()
        await asyncio.sleep(0)
        accepted[1] = queue.submit(model, ["e"])
        model.go_on.set()
        await asyncio.gather(*accepted)
        return refused.value.retry_after

    assert asyncio.run(main()) > 0


def test_a_slow_first_request_does_not_cause_refusals():
    async def main():
        model, queue = Lengths(), Batcher(100, max_wait=10)
        queue._measure(model, 20, 20)
        model.go_on.clear()
        futures = [queue.submit(model, ["a" * 50]) for _ in range(90)]
        assert queue.expected_wait() == 0
        model.go_on.set()
        await asyncio.gather(*futures)

    asyncio.run(main())


@pytest.mark.parametrize("sizes", [[1000] * 20, [1000, 10, 10, 10] * 10])
def test_the_expected_time_follows_the_passes_and_full_ones_have_more_weight(monkeypatch, sizes):
    """Full passes take a millisecond per character, small ones three."""
    monkeypatch.setattr(passes, "PASS_CHARACTERS", 1000)

    async def main():
        model, queue = Lengths(), Batcher(100)
        for size in sizes:
            queue._measure(model, size, size * (0.001 if size == 1000 else 0.003))
        return queue._seconds[model]

    assert 0.001 <= asyncio.run(main()) < 0.0018


def test_a_request_that_waits_twice_as_long_as_expected_is_refused():
    async def script(queue, model):
        queue._max_wait = 0.01
        waiting = queue.submit(model, ["a"])
        await asyncio.sleep(0.03)
        model.go_on.set()
        with pytest.raises(QueueFullError):
            await waiting
        return queue.num_waiting, queue.expected_wait()

    assert run(script)[0] == (0, 0)


def test_a_long_request_gets_half_of_the_passes_when_it_is_late(monkeypatch):
    monkeypatch.setattr(passes, "PASS_CHARACTERS", 1)
    monkeypatch.setattr(passes, "PATIENCE_SECONDS", -1)

    async def script(queue, model):
        futures = [queue.submit(model, ["long"] * 4)]
        futures += [queue.submit(model, [text]) for text in "abcdefgh"]
        model.go_on.set()
        await asyncio.gather(*futures)

    _, model = run(script)
    firsts = [items[0] for _, items in model.passes[1:]]
    assert firsts[:8].count("long") == 4
    assert firsts[:2] != ["long", "long"] or firsts[2:4] != ["long", "long"]


def test_short_requests_pass_a_long_one_that_is_not_late(monkeypatch):
    monkeypatch.setattr(passes, "PATIENCE_SECONDS", 60)
    long = "a" * passes.SHORT_CHARACTERS

    async def script(queue, model):
        futures = [queue.submit(model, [text]) for text in (long, "b", long, "c")]
        model.go_on.set()
        await asyncio.gather(*futures)

    _, model = run(script)
    assert [items for _, items in model.passes[1:]] == [["b", "c"], [long, long]]


def test_a_late_request_is_computed_with_all_others_in_their_order(monkeypatch):
    monkeypatch.setattr(passes, "PATIENCE_SECONDS", -1)
    long = "a" * passes.SHORT_CHARACTERS

    async def script(queue, model):
        queue._late_next = False
        futures = [queue.submit(model, [text]) for text in (long, "b", long, "c")]
        model.go_on.set()
        await asyncio.gather(*futures)

    _, model = run(script)
    assert [items for _, items in model.passes[1:]] == [[long, "b", long, "c"]]


def test_a_pass_takes_about_a_given_time_and_a_late_one_four_times_as_long(monkeypatch):
    """A character takes 20 us, so 2,500 characters take 50 ms."""
    text = "a" * (100 - passes.ITEM_CHARACTERS)

    async def script(queue, model):
        queue._seconds[model] = 2e-5
        future = queue.submit(model, [text] * 200)
        queue._late_next = True  # the last pass
        monkeypatch.setattr(passes, "PATIENCE_SECONDS", -1)
        monkeypatch.setattr(queue, "_measure", lambda *_: None)
        model.go_on.set()
        await future

    _, model = run(script, max_queue=240)
    assert [len(items) for _, items in model.passes[1:]] == [25, 100, 25, 50]


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
    monkeypatch.setattr(passes, "PASS_CHARACTERS", 1)
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
