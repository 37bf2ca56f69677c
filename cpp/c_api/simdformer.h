/* SPDX-License-Identifier: Apache-2.0 */
/* simdformer in C and C++: token ids in, vectors or scores out.
 *
 * A model is a file that `simdformer export` wrote. Tokenizing is the caller's. Results have the
 * bits that Python's classes give for the same ids on the same CPU; they do not depend on the batch
 * or the number of threads. Functions of this header may be called by any threads at the same time,
 * also with the same model, except that nothing may use a model while it is closed.
 */
#ifndef SIMDFORMER_H
#define SIMDFORMER_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(SIMDFORMER_BUILDING)
#define SIMDFORMER_API __declspec(dllexport)
#elif defined(_WIN32)
#define SIMDFORMER_API __declspec(dllimport)
#else
#define SIMDFORMER_API __attribute__((visibility("default")))
#endif

/* Changes if programs must be compiled again or changed. */
#define SIMDFORMER_ABI_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

typedef struct simdformer_model simdformer_model;

/* The defaults are 0 for all members except size. */
typedef struct simdformer_options {
  size_t size;          /* sizeof(simdformer_options) */
  size_t pooling_start; /* tokens at the start of each sequence that pooling leaves out */
  int32_t num_threads;  /* 0: SIMDFORMER_NUM_THREADS, else the CPUs of the process */
} simdformer_options;

/* SIMDFORMER_ABI_VERSION of the library, to compare with that of the header. */
SIMDFORMER_API int32_t simdformer_abi_version(void);

/* The version of the library, such as "0.1.0". */
SIMDFORMER_API const char* simdformer_version(void);

/* The error of the last call on this thread that failed; "" if none did. Valid until the next
 * call on this thread that fails. */
SIMDFORMER_API const char* simdformer_last_error(void);

/* Opens a file, whose path is UTF-8. NULL on failure. */
SIMDFORMER_API simdformer_model* simdformer_open(const char* path);

/* Opens the contents of a file. They are copied. NULL on failure. */
SIMDFORMER_API simdformer_model* simdformer_open_memory(const void* data, size_t size);

/* model may be NULL. */
SIMDFORMER_API void simdformer_close(simdformer_model* model);

/* Floats of a sequence's row: a vector, or the scores of a cross-encoder. */
SIMDFORMER_API size_t simdformer_dimension(const simdformer_model* model);

/* Ids are in [0, simdformer_vocab_size). */
SIMDFORMER_API size_t simdformer_vocab_size(const simdformer_model* model);

/* Token types are in [0, simdformer_num_token_types); 0 if the model has none. */
SIMDFORMER_API size_t simdformer_num_token_types(const simdformer_model* model);

/* Tokens of the longest sequence; 0 for any number. */
SIMDFORMER_API size_t simdformer_max_length(const simdformer_model* model);

/* Computes the rows of sequences that are stored one after another, without padding.
 *
 * input_ids: of all tokens, special tokens included. token_type_ids: of all tokens, or NULL for 0.
 * offsets: num_sequences + 1 numbers, starting with 0; sequence i is tokens offsets[i] to
 * offsets[i + 1]. options: NULL for the defaults. output: num_sequences rows of
 * simdformer_dimension floats. Returns 0, or -1 on failure; output then holds anything. */
SIMDFORMER_API int32_t simdformer_encode(const simdformer_model* model, const int32_t* input_ids,
                                         const int32_t* token_type_ids, const int32_t* offsets,
                                         size_t num_sequences, const simdformer_options* options,
                                         float* output);

#ifdef __cplusplus
}
#endif

#endif
