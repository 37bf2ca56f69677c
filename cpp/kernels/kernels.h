// SPDX-License-Identifier: Apache-2.0
// The kernel table, with the formula, shapes and aliasing of every kernel; those without a struct
// of arguments are described in kernels.inc. One table is compiled per ISA level (isa/*.cpp), and
// layers call through it. Kernels are single-threaded, never allocate, never throw, and do not
// check their arguments: the layers check shapes. Matrices are row-major with a row stride (ld...)
// in elements.
//
// Every output element depends only on its own row and is summed in one fixed order, whatever the
// number of other rows is. Therefore results do not depend on batch and threads.
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

// c[i, j] = activation(sum_p a[i, p] w[j, p] + bias[j]) + residual[i, j]. If norm_weight is given,
// each row of c is then layer-normalized. Only for columns j of panels [panel_begin, panel_end). w
// is packed by pack_weight. k may be split into several calls: a holds columns [k_begin, k_begin +
// k) of the whole operand, accumulate adds to the content of c, and only the last call sets finish,
// which applies bias, activation, residual and norm. c may equal residual if there is only one call
// and activation is the identity; nothing else may overlap.
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
  size_t c_begin = 0;  // the output's column that is the first in c
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

// int8: the number of columns per group. Each group has its own scale.
constexpr size_t kS8Group = 128;

// Rotated weights and activations: each whole group x of columns is replaced by H x, where H is the
// Hadamard matrix of order kS8RotationOrder between columns kS8Group / kS8RotationOrder apart. This
// spreads large values over a group and leaves products as they are, because H H = 8 I and weights
// are divided by 8 (QuaRot: Ashkboos et al. 2024, arXiv:2404.00456).
constexpr size_t kS8RotationOrder = 8;

// The greatest code of an activation; rotated activations have fewer codes. Then the sum of two
// products fits 16 bits wherever two neighbouring weights have |w[2p] + w[2p + 1]| <=
// kS8PairLimit: 208 x 157 < 2^15.
constexpr int kS8Codes = 255;
constexpr int kS8RotatedCodes = 208;
constexpr int kS8PairLimit = 157;

// The maximum number of outlier columns of a weight.
constexpr size_t kS8MaxOutliers = 64;

// Columns that are multiplied in float32: a few channels with very large values would reduce the
// precision of all others. Group g has column[o] for o in [begin[g], begin[g + 1]), ascending.
// kept: 0 for an outlier, 1 for other columns. At most kS8MaxOutliers. All pointers are null if
// there are none.
struct S8Outliers {
  const uint32_t* begin = nullptr;   // (groups + 1)
  const uint32_t* column = nullptr;  // (begin[groups])
  const float* kept = nullptr;       // (k)
};

// Quantizes x to u8, by rows and groups g of columns:
//   minimum[i, g] = min_p x[i, p],  scale[i, g] = (max_p x[i, p] - minimum[i, g]) / codes,
//   q[i, p] = round((x[i, p] - minimum[i, g]) / scale[i, g]), ties to even
// so that x ~ minimum + scale q. codes: kS8Codes, or kS8RotatedCodes if x is rotated. Where kept is
// 0, a finite x counts as 0 in minimum, scale and a rotation; q is any byte without a rotation,
// because its weight is 0. x: (rows, cols); q: (groups, capacity, kS8Group), 0
// beyond cols; scale, minimum: (groups, capacity). Only the first rows of each group are written. A
// group with NaN, infinity or a range beyond float32 gets a scale that is not finite, so its row of
// a product is not finite either. scale is never below the smallest normal number.
struct QuantizeArgs {
  size_t rows = 0;
  size_t cols = 0;
  const float* x = nullptr;
  size_t ldx = 0;
  const float* kept = nullptr;  // (cols), or null: all 1
  bool rotated = false;         // rotate whole groups of x first
  size_t capacity = 0;
  uint8_t* q = nullptr;
  float* scale = nullptr;
  float* minimum = nullptr;
};

// How a level stores s8 weights: `piece` adjacent weights of a column, with bits flipped by xor
// with `flip`.
struct S8Layout {
  size_t piece;
  int flip;
};

// weight: (n, k) contiguous s8, scale: (n, groups) contiguous -> the arrays of S8Weight. packed:
// panels [panels][groups][kS8Group / piece][width][piece]; ranges: panels
// [panels][groups][2][width], with each group's scale, and scale times the sum of its weights.
// width is s8_nr; the last panel is narrower. k is padded with zeros to whole groups, n to whole
// vectors.
struct PackS8Args {
  size_t n = 0;
  size_t k = 0;
  const int8_t* weight = nullptr;
  const float* scale = nullptr;
  int8_t* packed = nullptr;
  float* ranges = nullptr;
};

// w[j, p] = scale[j, p / kS8Group] weight[j, p]. In outlier columns, weight is 0 (before a
// rotation) and outlier_weight is used instead.
struct S8Weight {
  const int8_t* packed = nullptr;
  const float* ranges = nullptr;
  S8Outliers outliers = {};
  size_t num_outliers = 0;
  const float* outlier_weight = nullptr;  // pack_weight of (n, num_outliers)
  bool rotated = false;                   // so activations are rotated too
  bool bounded = false;                   // rotated, and every pair is within kS8PairLimit
};

// Folds over the rows of a product.
enum class Fold : int32_t {
  kMax,            // y[j] = max(y[j], x[i, j] + bias[j]); NaN is kept
  kSumLog1p,       // y[j] = y[j] + log(1 + max(0, x[i, j] + bias[j]))
  kSumLog1pTwice,  // y[j] = y[j] + log(1 + log(1 + max(0, x[i, j] + bias[j])))
};

// Applied to rows i in order. x: (rows, cols), row stride ldx; bias: (cols) or null; y: (cols).
struct FoldArgs {
  Fold fold = Fold::kMax;
  size_t rows = 0;
  size_t cols = 0;
  const float* x = nullptr;
  size_t ldx = 0;
  const float* bias = nullptr;
  float* y = nullptr;
};

// The score of a query and a key.
enum class Score : int32_t {
  kDot,              // q . k; bilinear, cosine and Euclidean scores are reduced to it
  kAdditive,         // additive_weight . tanh(q + k)  (Bahdanau et al. 2015)
  kSquaredDistance,  // -|q - k|^2 term by term, for vectors for which the expanded form cancels
};

// The values that AttentionArgs::weights receives.
enum class WeightsStage : int32_t { kScaled, kCapped, kBiased, kSoftmax };

// Attention of one head of one sequence:
//   s[i, j] = softmax_scale score(q[i], k[j])
//   s[i, j] = softcap tanh(s[i, j] / softcap)                                   if softcap > 0
//   s[i, j] += key_bias[j] + relative_bias[j - i + num_queries - 1] + pair_bias[i, j]
//   s[i, j] = -inf  unless min_distance <= j - i <= max_distance, key_mask[j] and pair_mask[i, j]
//   out[i, :] = sum_j softmax_j(s)[i, j] v[j, :]
// q: (num_queries, head_dim), k: (num_keys, head_dim), v: (num_keys, value_dim), out: (num_queries,
// value_dim); no overlap. Optional pointers may be null; their terms or masks are then omitted. A
// row without a key, or with only biases of -inf, gives masked_value in out and weights. k and v of
// masked keys have no effect, even if they are NaN. The bits of a row do not depend on other rows,
// nor on keys after its last one.
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
  // K and V as packed by pack_keys and pack_values for packed_capacity keys; then k and v are not
  // read. Only for kDot.
  const float* packed_k = nullptr;
  const float* packed_v = nullptr;
  size_t packed_capacity = 0;
  const float* additive_weight = nullptr;  // (head_dim), for kAdditive
  // exact: each tanh of kAdditive has a relative error of 2 ulp; otherwise an absolute error of 2
  // ulp of 1, in a third of the time.
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
  // For attention_s16: the largest |q| of all queries that share a step, so that the queries of a
  // head can be split into several calls. 0 or less: the largest of this call's q.
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

// y[i, j] = (x[i, j] - mean[j]) scale[j] + shift[j]: BatchNorm and PowerNorm with known statistics.
// x, y: (rows, cols), x == y allowed; mean, scale, shift: (cols).
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

// A table (.., cols), contiguous, in float32, bfloat16 or int8: one of the first three is not null.
// A number in int8 is scale[row, column / kS8Group] values[row, column].
struct TableRows {
  const float* float32 = nullptr;
  const uint16_t* bfloat16 = nullptr;
  const int8_t* values = nullptr;
  const float* scale = nullptr;  // (.., ceil(cols / kS8Group))
};

// y[i, :] = word[input_ids[i], :] + position[position_ids[i], :] + token_type[token_type_ids[i], :]
// position and token_type may be null. Tables: (.., cols) contiguous; y: (rows, cols).
struct EmbeddingArgs {
  size_t rows = 0;
  size_t cols = 0;
  TableRows word;
  const float* position = nullptr;
  const float* token_type = nullptr;
  const int32_t* input_ids = nullptr;
  const int32_t* position_ids = nullptr;
  const int32_t* token_type_ids = nullptr;  // null: all 0
  float* y = nullptr;
  size_t ldy = 0;
};

// One vector from the rows of a sequence, with sentence-transformers' names.
enum class Pooling : int32_t {
  kCls,           // x[0]
  kMax,           // max_i x[i]
  kMean,          // sum_i x[i] / rows
  kMeanSqrtLen,   // sum_i x[i] / sqrt(rows)
  kWeightedMean,  // sum_i (first + i + 1) x[i] / sum_i (first + i + 1)
  kLastToken,     // x[rows - 1]
};

// gemm_bf16 on AMX: within gemm's error bound, except that products below 2^-126 count as 0. The
// bits differ from those of gemm. All members are null at levels without AMX.
struct Bf16Tiles {
  // The number of values that pack_weight writes for a weight (n, k): [ceil(n / 16)][ceil(k /
  // 32)][16][16][2]. Columns p and p + 16 of a step of 32 are adjacent: step, p, row, half.
  size_t (*packed_size)(size_t n, size_t k) = nullptr;
  // weight: (n, k), row stride ldw. False if gemm_bf16 must be used instead, because the weight is
  // not finite, or all of its values are below 2^-40.
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
  bool s8_rotates;  // gemm_s8 is faster with rotated, bounded weights
};

}  // namespace simdformer
