// SPDX-License-Identifier: Apache-2.0
// The kernel table: every kernel's formula, shapes and aliasing, here where it takes a struct and
// in kernels.inc where it does not. One table is compiled per ISA level (isa/*.cpp); layers call
// through it. Kernels are single-threaded, never allocate, never
// throw and trust their arguments: shapes are checked by the layers. Matrices are row-major with a
// row stride (ld...) in elements.
//
// Every output element depends on its own row alone and is summed in one fixed order, whatever the
// number of rows beside it: that is what makes results independent of batch and threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simdformer {

enum class Activation : int32_t {
  kIdentity,
  kGelu,       // x Phi(x), by erf
  kGeluTanh,   // 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
  kRelu,       // max(x, 0)
  kSilu,       // x sigmoid(x)
  kQuickGelu,  // x sigmoid(1.702 x)
  kTanh,
  kSigmoid,
};

// c[i, j] = activation(sum_p a[i, p] w[j, p] + bias[j]) + residual[i, j], then, if norm_weight is
// given, each row of c is layer-normalized. Columns j of panels [panel_begin, panel_end) only.
// w is packed by pack_weight. k may be worked off in chunks: a holds columns [k_begin, k_begin + k)
// of the whole operand, accumulate adds to what c holds, and only the last chunk sets finish (which
// applies bias, activation, residual and norm). c may equal residual if k comes in one chunk and
// activation is the identity; nothing else may overlap.
struct GemmArgs {
  size_t m = 0;  // rows of a and c
  size_t n = 0;  // columns of c, as packed
  size_t k = 0;  // columns of a in this call
  const float* a = nullptr;
  size_t lda = 0;
  const float* packed_weight = nullptr;
  size_t packed_k = 0;  // k of the whole packed weight
  size_t k_begin = 0;
  size_t panel_begin = 0;
  size_t panel_end = 0;
  float* c = nullptr;
  size_t ldc = 0;
  size_t c_begin = 0;  // column of the output that c's first element holds
  bool accumulate = false;
  bool finish = true;
  const float* bias = nullptr;  // (n) or null
  Activation activation = Activation::kIdentity;
  const float* residual = nullptr;  // (m, n) or null
  size_t ldr = 0;
  const float* norm_weight = nullptr;  // (n) or null; needs every panel in this call
  const float* norm_bias = nullptr;    // (n) or null
  float norm_eps = 0.0f;
};

// int8: columns come in groups of this many, each with a scale of its own.
constexpr size_t kS8Group = 128;

// Columns of a weight that may be outliers.
constexpr size_t kS8MaxOutliers = 64;

// Columns that are multiplied in float32, as a few channels with very large values would cost all
// others their precision. Group g has column[o], o in [begin[g], begin[g + 1]), ascending. kept: 0
// for an outlier, 1 for any other column. At most kS8MaxOutliers; all may be null: none.
struct S8Outliers {
  const uint32_t* begin = nullptr;   // (groups + 1)
  const uint32_t* column = nullptr;  // (begin[groups])
  const float* kept = nullptr;       // (k)
};

// x to u8, by rows and groups g of columns:
//   minimum[i, g] = min_p x[i, p],  scale[i, g] = (max_p x[i, p] - minimum[i, g]) / 255,
//   q[i, p] = round((x[i, p] - minimum[i, g]) / scale[i, g]), ties to even
// so that x ~ minimum + scale q. Where kept is 0, a finite x counts as 0 in minimum and scale,
// and q is any byte: its weight is 0. x: (rows, cols); q: (groups, capacity, kS8Group), 0 beyond
// cols; scale, minimum: (groups, capacity); each group's first rows are written. A group with a
// NaN, an infinity or a range beyond float32 gets a scale that is not finite, and so does its row
// of a product. scale is never below the least normal number.
struct QuantizeArgs {
  size_t rows = 0;
  size_t cols = 0;
  const float* x = nullptr;
  size_t ldx = 0;
  const float* kept = nullptr;  // (cols), or null: all 1
  size_t capacity = 0;
  uint8_t* q = nullptr;
  float* scale = nullptr;
  float* minimum = nullptr;
};

// How a level stores weights of s8: `piece` of a column side by side, their bits exclusive-or flip.
struct S8Layout {
  size_t piece;
  int flip;
};

// weight: (n, k) contiguous s8, scale: (n, groups) contiguous -> what S8Weight points to. packed:
// panels [panels][groups][kS8Group / piece][width][piece]; ranges: panels
// [panels][groups][2][width], each group's scale and scale times the sum of its weights. width is
// s8_nr, the last one narrower. Zeros fill k to whole groups and n to vectors.
struct PackS8Args {
  size_t n = 0;
  size_t k = 0;
  const int8_t* weight = nullptr;
  const float* scale = nullptr;
  int8_t* packed = nullptr;
  float* ranges = nullptr;
};

// w[j, p] = scale[j, p / kS8Group] weight[j, p], of outlier columns outlier_weight alone (there,
// weight is 0).
struct S8Weight {
  const int8_t* packed = nullptr;
  const float* ranges = nullptr;
  S8Outliers outliers = {};
  size_t num_outliers = 0;
  const float* outlier_weight = nullptr;  // pack_weight of (n, num_outliers)
};

// What is kept of the rows of a product.
enum class Fold : int32_t {
  kMax,            // y[j] = max(y[j], x[i, j] + bias[j]); NaN stays
  kSumLog1p,       // y[j] = y[j] + log(1 + max(0, x[i, j] + bias[j]))
  kSumLog1pTwice,  // y[j] = y[j] + log(1 + log(1 + max(0, x[i, j] + bias[j])))
};

// For rows i in order. x: (rows, cols), row stride ldx; bias: (cols) or null; y: (cols).
struct FoldArgs {
  Fold fold = Fold::kMax;
  size_t rows = 0;
  size_t cols = 0;
  const float* x = nullptr;
  size_t ldx = 0;
  const float* bias = nullptr;
  float* y = nullptr;
};

// How a query and a key give their score.
enum class Score : int32_t {
  kDot,              // q . k; bilinear, cosine and Euclidean scores reduce to it
  kAdditive,         // additive_weight . tanh(q + k)  (Bahdanau et al. 2015)
  kSquaredDistance,  // -|q - k|^2 term by term, for vectors whose expanded form cancels
};

// What AttentionArgs::weights receives.
enum class WeightsStage : int32_t { kScaled, kCapped, kBiased, kSoftmax };

// Attention of one head of one sequence:
//   s[i, j] = softmax_scale score(q[i], k[j])
//   s[i, j] = softcap tanh(s[i, j] / softcap)                                   if softcap > 0
//   s[i, j] += key_bias[j] + relative_bias[j - i + num_queries - 1] + pair_bias[i, j]
//   s[i, j] = -inf  unless min_distance <= j - i <= max_distance, key_mask[j] and pair_mask[i, j]
//   out[i, :] = sum_j softmax_j(s)[i, j] v[j, :]
// q: (num_queries, head_dim), k: (num_keys, head_dim), v: (num_keys, value_dim), out: (num_queries,
// value_dim); no overlap. A pointer may be null: its term or mask is left out. A row without a key
// gives masked_value in out and weights; so does one whose biases are all -inf. A masked key's k
// and v are never mixed in, whatever they hold. The bits of a row do not depend on the other rows,
// nor on keys behind its last one.
struct AttentionArgs {
  static constexpr int64_t kUnbounded = INT64_C(1) << 40;

  size_t num_queries = 0;
  size_t num_keys = 0;
  size_t head_dim = 0;
  size_t value_dim = 0;
  Score score = Score::kDot;
  float softmax_scale = 1.0f;
  float softcap = 0.0f;
  const float* q = nullptr;
  size_t ldq = 0;
  const float* k = nullptr;
  size_t ldk = 0;
  const float* v = nullptr;
  size_t ldv = 0;
  // K and V as pack_keys and pack_values laid them out for packed_capacity keys; then k and v are
  // not read. Only for kDot.
  const float* packed_k = nullptr;
  const float* packed_v = nullptr;
  size_t packed_capacity = 0;
  const float* additive_weight = nullptr;  // (head_dim), for kAdditive
  // Each tanh of kAdditive within 2 ulp of itself; else within 2 ulp of 1, in a third of the time.
  bool exact_tanh = false;
  const float* key_bias = nullptr;       // (num_keys)
  const float* relative_bias = nullptr;  // (num_queries + num_keys - 1)
  const float* pair_bias = nullptr;      // (num_queries, num_keys)
  size_t ld_pair_bias = 0;
  const uint8_t* key_mask = nullptr;   // (num_keys), 0 = masked
  const uint8_t* pair_mask = nullptr;  // (num_queries, num_keys), 0 = masked
  size_t ld_pair_mask = 0;
  int64_t min_distance = -kUnbounded;
  int64_t max_distance = kUnbounded;
  float masked_value = 0.0f;
  float* out = nullptr;
  size_t ldo = 0;
  float* weights = nullptr;  // (num_queries, num_keys)
  size_t ld_weights = 0;
  WeightsStage weights_stage = WeightsStage::kSoftmax;
  // For attention_s16: the largest |q| of all queries that share a step, so that those of a head
  // may come in several calls. 0 or less: that of this call's q.
  float q_magnitude = 0.0f;
  // attention_scratch(num_keys, head_dim, value_dim) floats: linear in num_keys.
  float* scratch = nullptr;
};

// y[i, :] = (x[i, :] - mean) / sqrt(var + eps) * weight + bias, biased variance in two passes.
// x, y: (rows, cols), x == y allowed; weight, bias: (cols), bias may be null.
struct LayerNormArgs {
  size_t rows = 0;
  size_t cols = 0;
  const float* x = nullptr;
  size_t ldx = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float eps = 0.0f;
  float* y = nullptr;
  size_t ldy = 0;
};

// y[i, :] = x[i, :] / sqrt(mean(x[i, :]^2) + eps) * weight. x, y: (rows, cols), x == y allowed.
struct RmsNormArgs {
  size_t rows = 0;
  size_t cols = 0;
  const float* x = nullptr;
  size_t ldx = 0;
  const float* weight = nullptr;
  float eps = 0.0f;
  float* y = nullptr;
  size_t ldy = 0;
};

// y[i, j] = (x[i, j] - mean[j]) scale[j] + shift[j]: BatchNorm and PowerNorm once their statistics
// are known. x, y: (rows, cols), x == y allowed; mean, scale, shift: (cols).
struct NormColumnsArgs {
  size_t rows = 0;
  size_t cols = 0;
  const float* x = nullptr;
  size_t ldx = 0;
  const float* mean = nullptr;
  const float* scale = nullptr;
  const float* shift = nullptr;
  float* y = nullptr;
  size_t ldy = 0;
};

// Rotary embedding of one head (Su et al. 2021): the pair (x1, x2) of row i, number j, becomes
// (x1 c - x2 s, x2 c + x1 s) with c = cos[i, j], s = sin[i, j]. A pair is columns (j, j + pairs),
// or (2 j, 2 j + 1) if interleaved; columns from 2 pairs on are copied. x == y allowed.
struct RotaryArgs {
  size_t rows = 0;
  size_t cols = 0;
  size_t pairs = 0;
  bool interleaved = false;
  const float* x = nullptr;
  size_t ldx = 0;
  const float* cos = nullptr;  // (rows, pairs)
  const float* sin = nullptr;
  size_t ld_table = 0;
  float* y = nullptr;
  size_t ldy = 0;
};

// y[i, :] = word[input_ids[i], :] + position[position_ids[i], :] + token_type[token_type_ids[i], :]
// position and token_type may be null. Tables: (.., cols) contiguous; y: (rows, cols).
struct EmbeddingArgs {
  size_t rows = 0;
  size_t cols = 0;
  const float* word = nullptr;
  const float* position = nullptr;
  const float* token_type = nullptr;
  const int32_t* input_ids = nullptr;
  const int32_t* position_ids = nullptr;
  const int32_t* token_type_ids = nullptr;  // null: all 0
  float* y = nullptr;
  size_t ldy = 0;
};

// One sequence's rows to one vector, as sentence-transformers names them.
enum class Pooling : int32_t {
  kCls,           // x[0]
  kMax,           // max_i x[i]
  kMean,          // sum_i x[i] / rows
  kMeanSqrtLen,   // sum_i x[i] / sqrt(rows)
  kWeightedMean,  // sum_i (first + i + 1) x[i] / sum_i (first + i + 1)
  kLastToken,     // x[rows - 1]
};

// gemm_bf16 by AMX: within gemm's bound, but for products below 2^-126, which count as 0, and not
// with its bits. All null at levels without AMX.
struct Bf16Tiles {
  // Numbers that pack_weight writes for a weight of (n, k): [ceil(n / 16)][ceil(k /
  // 32)][16][16][2], where columns p and p + 16 of a step of 32 lie side by side: step, p, row,
  // half.
  size_t (*packed_size)(size_t n, size_t k) = nullptr;
  // weight: (n, k), row stride ldw. False if it is to be left to gemm_bf16: it is not finite, or
  // has nothing but values below 2^-40.
  bool (*pack_weight)(size_t n, size_t k, const float* weight, size_t ldw,
                      uint16_t* packed) = nullptr;
  // args.packed_weight is not read; k_begin is a multiple of 32; c is not the residual.
  void (*gemm)(const GemmArgs& args, const uint16_t* packed) = nullptr;
};

struct Kernels {
  const char* isa;
  size_t lanes;
  size_t gemm_mr;        // rows of the register tile
  size_t gemm_nr;        // columns of the register tile = columns of a packed panel
  size_t s8_nr;          // columns of a panel of pack_weight_s8
  size_t probe_flops;    // of one iteration of probe_fma
  size_t probe_dot_ops;  // int8 operations of one iteration of probe_dot
  Bf16Tiles bf16_tiles;

#define SIMDFORMER_KERNEL(result, name, arguments) result(*name) arguments;
#include "kernels/kernels.inc"
#undef SIMDFORMER_KERNEL

  S8Layout s8_layout;
};

}  // namespace simdformer
