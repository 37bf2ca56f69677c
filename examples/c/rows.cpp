// Computes the rows of many sequences together, on two threads. Each line of standard input has the
// token ids of a sequence, each line of standard output its row.
//
//     ./rows minilm.simdformer < ids.txt
#include <simdformer.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Close {
  void operator()(simdformer_model* model) const { simdformer_close(model); }
};
using Model = std::unique_ptr<simdformer_model, Close>;

void run(const char* path) {
  const Model model(simdformer_open(path));
  if (!model) throw std::runtime_error(simdformer_last_error());

  std::vector<int32_t> ids;
  std::vector<int32_t> offsets{0};
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream numbers(line);
    for (int32_t id; numbers >> id;) ids.push_back(id);
    offsets.push_back(static_cast<int32_t>(ids.size()));
  }

  const size_t num_sequences = offsets.size() - 1;
  const size_t dimension = simdformer_dimension(model.get());
  std::vector<float> rows(num_sequences * dimension);
  simdformer_options options{};
  options.size = sizeof(options);
  options.num_threads = 2;
  if (simdformer_encode(model.get(), ids.data(), nullptr, offsets.data(), num_sequences, &options,
                        rows.data()) != 0) {
    throw std::runtime_error(simdformer_last_error());
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    std::printf("%.9g%c", static_cast<double>(rows[i]), (i + 1) % dimension == 0 ? '\n' : ' ');
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 2) throw std::invalid_argument("usage: rows MODEL < IDS");
    run(argv[1]);
  } catch (const std::exception& error) {
    std::cerr << "rows: " << error.what() << '\n';
    return 1;
  }
}
