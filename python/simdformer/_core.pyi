# The native extension: layers that run whole forward passes, and their kernel table.
#
# Arrays are float32 unless noted, with any memory layout. Ids have any integer type. A wrong dtype
# raises TypeError and a wrong shape ValueError, with the name of the argument. num_threads=0 means
# num_threads(). Layers copy (and pack) their weights.

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32: TypeAlias = NDArray[np.float32]
Int32: TypeAlias = NDArray[np.int32]
Int8: TypeAlias = NDArray[np.int8]
Uint8: TypeAlias = NDArray[np.uint8]
Uint16: TypeAlias = NDArray[np.uint16]

def compiled_isas() -> list[str]: ...
def available_isas() -> list[str]: ...
def active_isa() -> str: ...
def set_active_isa(isa: str) -> None: ...
def num_threads() -> int: ...
def num_threads_source() -> str: ...
def limit_threads(limit: int) -> None: ...
def thread_provider() -> Literal["pool", "openmp"]: ...
def cgroup_cpu_limit(root: str) -> float: ...
def leave_python() -> None: ...
def return_to_python() -> None: ...
def compiler() -> str: ...
def activations() -> list[str]: ...
def pooling_modes() -> list[str]: ...

# The number of columns of a weight that share a scale.
def s8_group() -> int: ...

# The largest |a + b| of rotated weights a, b in an even column and the next one.
def s8_pair_limit() -> int: ...

# Whether int8 is faster with rotated weights at the active level.
def s8_rotates() -> bool: ...

# values int8 (out, in), scale (out, ceil(in / s8_group())). Without a rotation, values are 0 in the outliers' columns.
def quantize_weight(
    weight: Float32, outliers: Int32 | None = None, rotated: bool = False
) -> tuple[Int8, Float32]: ...

class Linear:
    def __init__(self, weight: Float32, bias: Float32 | None = None) -> None: ...
    @staticmethod
    def in_bfloat16(weight: Float32, bias: Float32 | None = None) -> Linear: ...
    @staticmethod
    def from_int8(
        values: Int8,
        scale: Float32,
        bias: Float32 | None = None,
        outliers: Int32 | None = None,
        outlier_weight: Float32 | None = None,
        rotated: bool = False,
    ) -> Linear: ...
    # The packed weight (out_features, in_features), bfloat16 widened. ValueError for int8.
    def weight(self) -> Float32: ...
    def bias(self) -> Float32 | None: ...
    # values, scale, outliers, outlier_weight, rotated, as for from_int8. ValueError for other types.
    def int8(self) -> tuple[Int8, Float32, Int32, Float32, bool]: ...
    # float32, bfloat16 or int8
    @property
    def compute_type(self) -> str: ...
    # Between record_inputs() and take_inputs(), forward passes record their inputs (rows, in_features).
    # They must run on one thread.
    def record_inputs(self) -> None: ...
    def take_inputs(self) -> Float32: ...
    @property
    def in_features(self) -> int: ...
    @property
    def out_features(self) -> int: ...

class LayerNorm:
    def __init__(
        self, weight: Float32, bias: Float32 | None = None, *, eps: float = 1e-5
    ) -> None: ...

class Embeddings:
    # word: the table, in int8 the fields of an Int8Matrix, or a float32 layer whose weight is the table.
    # bfloat16: round a float32 table to bfloat16.
    def __init__(
        self,
        word: Float32 | tuple[Int8, Float32, Int32, Float32] | Linear,
        position: Float32 | None = None,
        token_type: Float32 | None = None,
        norm: LayerNorm | None = None,
        *,
        padding_idx: int | None = None,
        projection: Linear | None = None,
        bfloat16: bool = False,
    ) -> None: ...
    # Read-only views of the tables; they keep the embeddings alive. None: no table.
    # word: in its type; the upper halves of float32, or values and scale of int8.
    def word(self) -> Float32 | Uint16 | tuple[Int8, Float32] | None: ...
    def position(self) -> Float32 | None: ...
    def token_type(self) -> Float32 | None: ...
    @property
    def max_positions(self) -> int: ...

class FeedForward:
    def __init__(
        self, up: Linear, down: Linear, *, activation: str, gate: Linear | None = None
    ) -> None: ...
    @staticmethod
    def joined(gate_up: Linear, down: Linear, *, activation: str) -> FeedForward: ...

class Experts:
    def __init__(
        self,
        router: Linear,
        experts: Sequence[FeedForward],
        bias: Float32 | None = None,
        *,
        top_k: int,
    ) -> None: ...

def gated_rows(inner_size: int) -> list[int]: ...

# The cost of each share of a product, in rows times panels, and of each share of rows.
def product_shares(rows: int, panels: int, team_size: int) -> list[int]: ...
def row_shares(items: int, rows: int, team_size: int) -> list[int]: ...

class Dense:
    def __init__(
        self,
        linear: Linear,
        *,
        activation: str = "identity",
        residual: bool = False,
        norm: LayerNorm | None = None,
    ) -> None: ...

class PooledStack:
    def __init__(
        self,
        stack: TransformerStack,
        pooling: Sequence[str],
        dense: Sequence[Dense] = (),
        *,
        normalize: bool = False,
    ) -> None: ...
    @property
    def embedding_dimension(self) -> int: ...
    def encode(
        self,
        input_ids: Int32,
        cu_seqlens: Int32,
        token_type_ids: Int32 | None = None,
        *,
        pooling_start: int = 0,
        head_masks: Sequence[Float32 | None] = (),
        self_weights: Sequence[Float32 | None] = (),
        weights_heads: Sequence[Sequence[int]] = (),
        head_outputs: Sequence[Float32 | None] = (),
        hidden_states: Sequence[Float32 | None] = (),
        num_threads: int = 0,
    ) -> Float32: ...
    # Calls write with the bytes of a file for the library for C. columns: that a row keeps, 0 for all.
    # activation: of the kept columns.
    def save(
        self,
        write: Callable[[memoryview], object],
        *,
        columns: int = 0,
        activation: str = "identity",
    ) -> None: ...

# One row over the vocabulary per sequence. vocabulary: None for the layer that holds the word embeddings.
class VocabularyStack:
    def __init__(
        self,
        stack: TransformerStack,
        vocabulary: Linear | None,
        bias: Float32 | None = None,
        transform: Dense | None = None,
        *,
        sums: bool = False,
        logarithms: int = 1,
    ) -> None: ...
    @property
    def embedding_dimension(self) -> int: ...
    def encode(
        self,
        input_ids: Int32,
        cu_seqlens: Int32,
        token_type_ids: Int32 | None = None,
        *,
        pooling_start: int = 0,
        head_masks: Sequence[Float32 | None] = (),
        self_weights: Sequence[Float32 | None] = (),
        weights_heads: Sequence[Sequence[int]] = (),
        head_outputs: Sequence[Float32 | None] = (),
        hidden_states: Sequence[Float32 | None] = (),
        num_threads: int = 0,
    ) -> Float32: ...
    def save(
        self,
        write: Callable[[memoryview], object],
        *,
        columns: int = 0,
        activation: str = "identity",
    ) -> None: ...

def pool_rows(
    rows: Float32,
    cu_seqlens: Int32,
    pooling: Sequence[str],
    *,
    pooling_start: int = 0,
    normalize: bool = False,
) -> Float32: ...

# The kernels of one ISA level, single-threaded, for tests and benchmarks.
# float32 (queries, documents): the largest product of each query token with a document token, summed or
# averaged over the query's tokens. Offsets start with 0.
def max_sim(
    queries: Float32,
    query_offsets: Int32,
    documents: Float32,
    document_offsets: Int32,
    *,
    mean: bool = False,
    num_threads: int = 0,
) -> Float32: ...

class KernelTable:
    def __init__(self, isa: str) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def lanes(self) -> int: ...
    @property
    def gemm_tile(self) -> tuple[int, int]: ...
    @property
    def has_bf16_tiles(self) -> bool: ...
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
    # q uint8 (rows, cols rounded up to groups), scale and minimum (rows, groups)
    def gemm_bf16(
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
    # q uint8 (rows, cols rounded up to groups), scale and minimum (rows, groups)
    def quantize_rows(
        self, x: Float32, rotated: bool = False
    ) -> tuple[Uint8, Float32, Float32]: ...
    def gemm_s8(
        self,
        a: Float32,
        values: Int8,
        scale: Float32,
        bias: Float32 | None = None,
        outliers: Int32 | None = None,
        outlier_weight: Float32 | None = None,
        rotated: bool = False,
        *,
        activation: str = "identity",
        residual: Float32 | None = None,
        norm_weight: Float32 | None = None,
        norm_bias: Float32 | None = None,
        eps: float = 1e-5,
    ) -> Float32: ...
    # relative_bias (queries + keys - 1,); weights (queries, keys) is written.
    def attention(
        self,
        q: Float32,
        k: Float32,
        v: Float32,
        *,
        softmax_scale: float,
        relative_bias: Float32 | None = None,
        weights: Float32 | None = None,
        q_magnitude: float = 0.0,
    ) -> Float32: ...
    def attention_s16(
        self,
        q: Float32,
        k: Float32,
        v: Float32,
        *,
        softmax_scale: float,
        relative_bias: Float32 | None = None,
        weights: Float32 | None = None,
        q_magnitude: float = 0.0,
    ) -> Float32: ...
    def largest_magnitude(self, x: Float32) -> float: ...
    def layer_norm(
        self, x: Float32, weight: Float32, bias: Float32 | None = None, *, eps: float = 1e-5
    ) -> Float32: ...
    def softmax(self, x: Float32) -> Float32: ...
    def activation(self, name: str, x: Float32) -> Float32: ...
    def exp(self, x: Float32) -> Float32: ...
    def exp2_nonpositive(self, x: Float32) -> Float32: ...
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
    def log1p(self, x: Float32) -> Float32: ...
    # fold: "max", "sum_log1p" or "sum_log1p_twice"; the result is combined with y, in place.
    def fold_rows_into(self, fold: str, x: Float32, bias: Float32 | None, y: Float32) -> None: ...
    def l2_normalize(self, x: Float32) -> Float32: ...
    # Seconds per call, the mean of `repeats` calls without Python between them.
    def time_gemm(
        self, m: int, n: int, k: int, repeats: int, *, activation: str = "identity"
    ) -> float: ...
    def time_gemm_bf16(self, m: int, n: int, k: int, repeats: int) -> float: ...
    def time_gemm_s8(self, m: int, n: int, k: int, repeats: int) -> float: ...
    def time_attention(
        self, num_queries: int, num_keys: int, head_dim: int, repeats: int
    ) -> float: ...
    def time_attention_s16(
        self, num_queries: int, num_keys: int, head_dim: int, repeats: int
    ) -> float: ...
    def time_rows(self, name: str, rows: int, cols: int, repeats: int) -> float: ...
    def fma_peak(self, iterations: int) -> float: ...
    def dot_peak(self, iterations: int) -> float: ...
    def read_sum(self, x: Float32) -> float: ...

# Called by simdformer.functional with checked arguments of rank 4: (batch, heads, rows, cols), the
# last dimension contiguous, strides and broadcasting allowed. `out` is written.
Float64: TypeAlias = NDArray[np.float64]
Int64: TypeAlias = NDArray[np.int64]

# spans: (sequences, 7) of q_begin, num_queries, k_begin, num_keys, min_distance, max_distance, origin.
def attention(
    query: Float32,
    key: Float32,
    value: Float32,
    out: Float32,
    spans: Int64,
    *,
    score: str = "dot",
    softmax_scale: float = 1.0,
    head_scales: Float32 | None = None,
    softcap: float = 0.0,
    masked_value: float = 0.0,
    normalize: bool = False,
    key_norms: bool = False,
    query_projection: Float32 | None = None,
    key_projection: Float32 | None = None,
    projection_bias: Float32 | None = None,
    additive_weight: Float32 | None = None,
    exact_tanh: bool = False,
    key_bias: Float32 | None = None,
    relative_bias: Float32 | None = None,
    relative_zero: int = 0,
    pair_bias: Float32 | None = None,
    key_mask: NDArray[np.bool_] | None = None,
    pair_mask: NDArray[np.bool_] | None = None,
    weights: Float32 | None = None,
    weights_stage: str = "softmax",
    num_threads: int = 0,
) -> None: ...
def layer_norm(
    x: Float32, weight: Float32, bias: Float32 | None, eps: float, out: Float32
) -> None: ...
def rms_norm(x: Float32, weight: Float32, eps: float, out: Float32) -> None: ...
def norm_columns(
    x: Float32, mean: Float32, scale: Float32, shift: Float32, out: Float32
) -> None: ...
def column_moments(x: Float32) -> tuple[Float32, Float32]: ...
def softmax(x: Float32, out: Float32) -> None: ...
def activate(name: str, x: Float32, out: Float32) -> None: ...
def gated(name: str, gate: Float32, x: Float32, out: Float32) -> None: ...
def linear(x: Float32, weight: Float32, bias: Float32 | None, out: Float32) -> None: ...
def embedding(weight: Float32, input: NDArray[np.int64], out: Float32) -> None: ...
def sin_cos(
    positions: Float64, frequencies: Float64, scale: float, sines: Float32, cosines: Float32
) -> None: ...
def rotary(x: Float32, cos: Float32, sin: Float32, interleaved: bool, out: Float32) -> None: ...
def relative_scores(
    x: Float32, table: Float32, index: Int32, scale: float, by_columns: bool, out: Float32
) -> None: ...
def relative_values(weights: Float32, table: Float32, index: Int32, out: Float32) -> None: ...

# Called by simdformer.nn. Masks are True where something is kept. Masks and biases have four dimensions
# (batch, heads, queries, keys); each may be 1. cu_seqlens are the offsets of sequences in packed
# (total, features) arrays, or give the lengths of sequences in (batch, rows, features) views, which
# may have any strides except in the last dimension. `out` and weights are filled in place.

def linear_forward(linear: Linear, x: Float32, *, num_threads: int = 0) -> Float32: ...

class Norm:
    @staticmethod
    def layer(norm: LayerNorm) -> Norm: ...
    @staticmethod
    def rms(weight: Float32, *, eps: float) -> Norm: ...
    @staticmethod
    def batch(
        weight: Float32, bias: Float32, running_mean: Float32, running_var: Float32, *, eps: float
    ) -> Norm: ...
    def forward(self, x: Float32, *, num_threads: int = 0) -> Float32: ...

class Masks:
    def __init__(
        self,
        *,
        causal: bool = False,
        key_mask: NDArray[np.bool_] | None = None,
        key_bias: Float32 | None = None,
        pair_mask: NDArray[np.bool_] | None = None,
        pair_bias: Float32 | None = None,
    ) -> None: ...

class Positions:
    def __init__(
        self,
        *,
        relative: Float32 | None = None,
        relative_center: int = 0,
        cos: Float32 | None = None,
        sin: Float32 | None = None,
        interleaved: bool = False,
        embeddings: RelativeEmbeddings | None = None,
    ) -> None: ...
    @property
    def max_length(self) -> int: ...

class RelativeEmbeddings:
    def __init__(
        self,
        *,
        rows: Int32,
        center: int,
        query_table: Float32 | None = None,
        key_table: Float32 | None = None,
        value_table: Float32 | None = None,
        content_bias: Float32 | None = None,
        position_bias: Float32 | None = None,
    ) -> None: ...

class KVCache:
    def __init__(self, batch_size: int) -> None: ...
    def lengths(self) -> list[int]: ...
    def select(self, indices: Int32) -> None: ...

class MultiheadAttention:
    def __init__(
        self,
        projections: Sequence[Sequence[Linear]],
        output: Linear,
        *,
        num_heads: int,
        num_kv_heads: int,
        score: str = "dot",
        softmax_scale: float,
        softcap: float = 0.0,
        masked_value: float = 0.0,
        normalize: bool = False,
        key_norm_bias: bool = False,
        additive_weight: Float32 | None = None,
        bias_k: Float32 | None = None,
        bias_v: Float32 | None = None,
        add_zero_attn: bool = False,
        window: tuple[int, int] = (-1, -1),
        head_scales: Float32 | None = None,
        query_norm: Norm | None = None,
        key_norm: Norm | None = None,
        position: Positions | None = None,
    ) -> None: ...
    def forward(
        self,
        query: Float32,
        key: Float32,
        value: Float32,
        cu_seqlens_q: Int32,
        cu_seqlens_k: Int32,
        out: Float32,
        *,
        weights: Float32 | None = None,
        masks: Masks = ...,
        positions: Positions | None = None,
        head_mask: Float32 | None = None,
        head_outputs: bool = False,
        num_threads: int = 0,
    ) -> None: ...

class TransformerLayer:
    def __init__(
        self,
        self_attention: MultiheadAttention,
        cross_attention: MultiheadAttention | None,
        feed_forward: FeedForward | Experts,
        self_norm: Norm | None,
        cross_norm: Norm | None,
        feed_forward_norm: Norm | None,
        *,
        # for the output of self-attention, cross-attention and feed-forward
        output_norms: Sequence[Norm | None] = ...,
        norm_first: bool = False,
        residual: bool = True,
        output_residual: bool = False,
        alpha: float = 1.0,
    ) -> None: ...

class TransformerStack:
    def __init__(
        self,
        layers: Sequence[TransformerLayer],
        norm: Norm | None = None,
        embeddings: Embeddings | None = None,
    ) -> None: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    # for the self-attention of each layer: (num_heads, features of a head's output)
    @property
    def layer_heads(self) -> list[tuple[int, int]]: ...
    @property
    def max_positions(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def num_token_types(self) -> int: ...
    def encode(
        self,
        input_ids: Int32,
        cu_seqlens: Int32,
        token_type_ids: Int32 | None = None,
        *,
        num_threads: int = 0,
    ) -> Float32: ...
    # x: rows, or int32 ids for a stack with embeddings. out: rows, or logits with lm_head.
    def forward(
        self,
        x: Float32 | Int32,
        cu_seqlens: Int32,
        out: Float32,
        *,
        token_type_ids: Int32 | None = None,
        memory: Float32 | None = None,
        memory_cu_seqlens: Int32 | None = None,
        masks: Masks = ...,
        memory_masks: Masks = ...,
        positions: Sequence[Positions | None] = (),
        head_masks: Sequence[Float32 | None] = (),
        self_weights: Sequence[Float32 | None] = (),
        cross_weights: Sequence[Float32] = (),
        head_outputs: Sequence[Float32 | None] = (),
        weights_heads: Sequence[Sequence[int]] = (),
        hidden_states: Sequence[Float32 | None] = (),
        self_cache: KVCache | None = None,
        cross_cache: KVCache | None = None,
        lm_head: Linear | None = None,
        last_only: bool = False,
        num_threads: int = 0,
    ) -> None: ...
