/* Prints the vector of one sequence of token ids, one number per line:
 *
 *     simdformer export all-MiniLM-L6-v2 -o minilm.simdformer
 *     ./embed minilm.simdformer 101 7592 2088 102
 */
#include <simdformer.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char* what) {
  fprintf(stderr, "embed: %s\n", what);
  return EXIT_FAILURE;
}

int main(int argc, char** argv) {
  if (argc < 3) return fail("usage: embed MODEL ID...");
  if (simdformer_abi_version() != SIMDFORMER_ABI_VERSION) return fail("another libsimdformer");

  simdformer_model* model = simdformer_open(argv[1]);
  if (!model) return fail(simdformer_last_error());

  const int32_t num_tokens = argc - 2;
  const size_t dimension = simdformer_dimension(model);
  int32_t* ids = malloc((size_t)num_tokens * sizeof(*ids));
  float* vector = malloc(dimension * sizeof(*vector));
  if (!ids || !vector) return fail("out of memory");
  for (int32_t i = 0; i < num_tokens; ++i) ids[i] = (int32_t)atoi(argv[i + 2]);

  const int32_t offsets[] = {0, num_tokens};
  if (simdformer_encode(model, ids, NULL, offsets, 1, NULL, vector) != 0) {
    return fail(simdformer_last_error());
  }
  for (size_t i = 0; i < dimension; ++i) printf("%.9g\n", vector[i]);

  free(vector);
  free(ids);
  simdformer_close(model);
  return EXIT_SUCCESS;
}
