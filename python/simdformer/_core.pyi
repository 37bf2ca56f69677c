# The native extension: layers that run whole forward passes, and the kernel table behind them.
#
# Arrays are float32 unless said otherwise, of any memory layout; ids are of any integer type. A wrong
# dtype is a TypeError and a wrong shape a ValueError that name the argument. num_threads=0 means
# num_threads(). Layers copy (and pack) the weights they are given.

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32: TypeAlias = NDArray[np.float32]
Int32: TypeAlias = NDArray[np.int32]

def compiled_isas() -> list[str]: ...
def available_isas() -> list[str]: ...
def active_isa() -> str: ...
def set_active_isa(isa: str) -> None: ...
def num_threads() -> int: ...
def num_threads_source() -> str: ...
def cgroup_cpu_limit(root: str) -> float: ...
def compiler() -> str: ...
def activations() -> list[str]: ...
def pooling_modes() -> list[str]: ...

class Linear:
    def __init__(self, weight: Float32, bias: Float32 | None = None) -> None: ...
    @property
    def in_features(self) -> int: ...
    @property
    def out_features(self) -> int: ...

class LayerNorm:
    def __init__(
        self, weight: Float32, bias: Float32 | None = None, *, eps: float = 1e-5
    ) -> None: ...

class Embeddings:
    def __init__(
        self,
        word: Float32,
        position: Float32 | None = None,
        token_type: Float32 | None = None,
        norm: LayerNorm | None = None,
        *,
        position_offset: int = 0,
    ) -> None: ...

class SelfAttention:
    def __init__(self, qkv: Linear, output: Linear, *, num_heads: int) -> None: ...

class FeedForward:
    def __init__(self, up: Linear, down: Linear, *, activation: str) -> None: ...

class EncoderLayer:
    def __init__(
        self,
        attention: SelfAttention,
        attention_norm: LayerNorm,
        feed_forward: FeedForward,
        output_norm: LayerNorm,
    ) -> None: ...

class Encoder:
    def __init__(self, embeddings: Embeddings, layers: Sequence[EncoderLayer]) -> None: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def max_positions(self) -> int: ...
    def forward(
        self,
        input_ids: Int32,
        cu_seqlens: Int32,
        token_type_ids: Int32 | None = None,
        *,
        num_threads: int = 0,
    ) -> Float32: ...

class Dense:
    def __init__(
        self, linear: Linear, *, activation: str = "identity", residual: bool = False
    ) -> None: ...

class SentenceEncoder:
    def __init__(
        self,
        encoder: Encoder,
        pooling: Sequence[str],
        dense: Sequence[Dense] = (),
        *,
        normalize: bool = False,
    ) -> None: ...
    @property
    def embedding_dimension(self) -> int: ...
    def forward(
        self,
        input_ids: Int32,
        cu_seqlens: Int32,
        token_type_ids: Int32 | None = None,
        *,
        pooling_start: int = 0,
        num_threads: int = 0,
    ) -> Float32: ...

# The kernels of one ISA level, single-threaded, for tests and benchmarks.
class KernelTable:
    def __init__(self, isa: str) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def lanes(self) -> int: ...
    @property
    def gemm_tile(self) -> tuple[int, int]: ...
    def names(self) -> list[str]: ...
    def gemm(
        self,
        a: Float32,
        weight: Float32,
        bias: Float32 | None = None,
        *,
        activation: str = "identity",
        residual: Float32 | None = None,
        norm_weight: Float32 | None = None,
        norm_bias: Float32 | None = None,
        eps: float = 1e-5,
    ) -> Float32: ...
    def attention(self, q: Float32, k: Float32, v: Float32, *, softmax_scale: float) -> Float32: ...
    def layer_norm(
        self, x: Float32, weight: Float32, bias: Float32 | None = None, *, eps: float = 1e-5
    ) -> Float32: ...
    def softmax(self, x: Float32) -> Float32: ...
    def activation(self, name: str, x: Float32) -> Float32: ...
    def exp(self, x: Float32) -> Float32: ...
    def embedding_sum(
        self,
        word: Float32,
        position: Float32 | None,
        token_type: Float32 | None,
        input_ids: Int32,
        position_ids: Int32,
        token_type_ids: Int32 | None,
    ) -> Float32: ...
    def pool(self, mode: str, x: Float32) -> Float32: ...
    def l2_normalize(self, x: Float32) -> Float32: ...
    # Seconds a call, the mean of `repeats` calls without Python between them.
    def time_gemm(
        self, m: int, n: int, k: int, repeats: int, *, activation: str = "identity"
    ) -> float: ...
    def time_attention(
        self, num_queries: int, num_keys: int, head_dim: int, repeats: int
    ) -> float: ...
    def time_rows(self, name: str, rows: int, cols: int, repeats: int) -> float: ...
    def fma_peak(self, iterations: int) -> float: ...
    def read_sum(self, x: Float32) -> float: ...
