# SPDX-License-Identifier: Apache-2.0
"""The modules after an encoder, combined into one object that returns one row per text."""

from __future__ import annotations

from typing import Any

import numpy as np

from simdformer._core import PooledStack, TransformerStack
from simdformer.folder.steps import (
    LAYERS,
    SENTENCE,
    TOKENS,
    Batch,
    Dense,
    Float32,
    Normalize,
    Pooling,
    Step,
    WeightedLayerPooling,
    check_widths,
)


class Chain:
    """The steps after an encoder.

    output: the feature that becomes a text's row. layers: whether the Transformer returns the hidden states
    of all layers. name: the file that declares the modules.
    """

    def __init__(
        self, name: str, steps: tuple[Step, ...], output: str = SENTENCE, *, layers: bool = False
    ) -> None:
        # without hidden states the reference's module does nothing
        kept = [s for s in steps if layers or not isinstance(s, WeightedLayerPooling)]
        self.steps = tuple(kept)
        self.output = output
        self._name = name
        self._layers = layers

    @property
    def include_prompt(self) -> bool:
        """Whether pooling includes the tokens of a prompt."""
        return all(step.include_prompt for step in self.steps if isinstance(step, Pooling))

    @property
    def reads_layers(self) -> bool:
        """Whether a step reads the hidden states of all layers."""
        return any(step.reads == LAYERS for step in self.steps)

    def __call__(self, stack: TransformerStack) -> PooledStack | SteppedStack:
        """Combine the steps with an encoder. ValueError if modules do not fit the encoder or each other."""
        given = {TOKENS: stack.hidden_size} | ({LAYERS: stack.hidden_size} if self._layers else {})
        for step in self.steps:
            if isinstance(step, WeightedLayerPooling):
                step.check_layers(stack.num_layers)
        widths = check_widths(self.steps, given)
        if self.output not in widths:
            raise ValueError(f"{self._name}: no module outputs {self.output!r}")
        native, rest = self._native(stack)
        if not rest and self.output == SENTENCE:
            return native
        return SteppedStack(native, stack, rest, self.output, widths[self.output])

    def _native(self, stack: TransformerStack) -> tuple[PooledStack, tuple[Step, ...]]:
        """The steps that run in the encoder's native call, and the remaining ones. If a remaining step needs
        token vectors, all steps remain."""
        steps = self.steps
        if not steps or not isinstance(steps[0], Pooling):
            return PooledStack(stack, ["cls"]), steps
        end, layers = 1, []
        while end < len(steps) and isinstance(step := steps[end], Dense):
            layer = step.native()
            if layer is None:
                break
            layers.append(layer)
            end += 1
        normalize = end < len(steps) and _is_plain_normalize(steps[end])
        rest = steps[end + normalize :]
        if any(TOKENS in (step.reads, step.writes) for step in rest):
            return PooledStack(stack, ["cls"]), steps
        return PooledStack(stack, steps[0].modes, layers, normalize=normalize), rest


def _is_plain_normalize(step: Step) -> bool:
    return isinstance(step, Normalize) and step.reads == step.writes == SENTENCE


class SteppedStack:
    """An encoder with steps that run outside its native call. It has the interface of PooledStack."""

    def __init__(
        self,
        native: PooledStack,
        stack: TransformerStack,
        steps: tuple[Step, ...],
        output: str,
        width: int,
    ) -> None:
        self._native = native
        self._steps = steps
        self._num_layers = stack.num_layers
        self._hidden_size = stack.hidden_size
        self._output = output
        self.embedding_dimension = width
        self._reads = {step.reads for step in steps}

    def encode(
        self,
        input_ids: Any,
        cu_seqlens: Any,
        token_type_ids: Any = None,
        *,
        pooling_start: int = 0,
        num_threads: int = 0,
        hidden_states: list[Float32 | None] | None = None,
        **taps: Any,
    ) -> Float32:
        """As PooledStack.encode."""
        states = self._states(len(input_ids), hidden_states)
        row = self._native.encode(
            input_ids,
            cu_seqlens,
            token_type_ids,
            pooling_start=pooling_start,
            num_threads=num_threads,
            hidden_states=states,
            **taps,
        )
        batch = Batch(np.asarray(cu_seqlens, np.int32), pooling_start, num_threads)
        features: dict[str, Any] = {SENTENCE: row, LAYERS: states}
        if states:
            features[TOKENS] = states[-1]
        rows: Float32 = self._run(features, batch)[self._output]
        return rows

    def save(self, *_: Any, **__: Any) -> None:
        """ValueError names the steps, which run outside the native call."""
        names = ", ".join(step.name for step in self._steps)
        raise ValueError(f"{names}: this runs outside the native call, so it cannot be exported")

    def token_rows(
        self, input_ids: Any, cu_seqlens: Any, token_type_ids: Any = None, *, num_threads: int = 0
    ) -> Float32 | None:
        """The token vectors after all steps; None if no step changes them."""
        if not any(step.writes == TOKENS for step in self._steps):
            return None
        states = self._states(len(input_ids), None)
        self._native.encode(
            input_ids, cu_seqlens, token_type_ids, num_threads=num_threads, hidden_states=states
        )
        batch = Batch(np.asarray(cu_seqlens, np.int32), 0, num_threads)
        rows: Float32 = self._run({LAYERS: states, TOKENS: states[-1]}, batch)[TOKENS]
        return rows

    def _states(self, tokens: int, given: list[Float32 | None] | None) -> list[Float32 | None]:
        """Arrays for the hidden states that the steps need, including the caller's own arrays."""
        states = list(given or [])
        if not self._reads & {TOKENS, LAYERS}:
            return states
        first = 0 if LAYERS in self._reads else self._num_layers
        states = states or [None] * (self._num_layers + 1)
        for i in range(first, len(states)):
            if states[i] is None:
                states[i] = np.empty((tokens, self._hidden_size), np.float32)
        return states

    def _run(self, features: dict[str, Any], batch: Batch) -> dict[str, Any]:
        for step in self._steps:
            features[step.writes] = step(features[step.reads], batch)
        return features
