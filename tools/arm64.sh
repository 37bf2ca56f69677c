#!/usr/bin/env bash
# usage: tools/arm64.sh python
#        tools/arm64.sh build
#        tools/arm64.sh run CPU [ARGUMENT ...]
#        tools/arm64.sh test CPU [ARGUMENT ...]
# python: unpacks Debian's AArch64 Python. build: also cross-compiles the package, on a Debian machine of another
# architecture. run: starts that Python with the package, on a CPU that qemu emulates, such as cortex-a72, neoverse-n1
# or max. test: the same with pytest. All files are kept in build/arm64; packages can be taken from ARM64_SITE instead.
# Missing files come from Debian (the compiler and qemu are installed, others only unpacked) and from PyPI. qemu is about
# 100 times slower than the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD/build/arm64
root=$here/root
site=${ARM64_SITE:-$here/site}
version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
python=python$version

# install PROGRAM PACKAGE
install() {
  command -v "$1" >/dev/null && return
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}

fetch_python() {
  [ -e "$root/usr/bin/$python" ] || tools/unpack_debian.sh arm64 "$here" \
    "$python-minimal" "lib$python-stdlib" "lib$python-dev" libstdc++6
}

fetch_wheels() {
  [ ! -e "$site/pytest" ] || return 0
  "$here/venv/bin/pip" -q download --no-deps --only-binary :all: -d "$here/wheels" --implementation cp \
    --python-version "$version" --platform manylinux2014_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_28_aarch64 numpy tokenizers safetensors tqdm huggingface_hub pytest iniconfig pluggy \
    packaging pygments hypothesis sortedcontainers typing_extensions
  for wheel in "$here"/wheels/*.whl; do /usr/bin/python3 -m zipfile -e "$wheel" "$site"; done
}

# The kernels have the flags of a release; everything else is compiled as fast as possible.
compile() {
  local venv=$here/venv
  [ -e "$venv/bin/ninja" ] || "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/pip" -q --disable-pip-version-check install cmake ninja "pybind11>=3.0"
  fetch_wheels
  "$venv/bin/cmake" -S . -B "$here/cmake" -G Ninja --log-level=WARNING -Dpybind11_DIR="$("$venv/bin/python" -m pybind11 --cmakedir)" \
    -DCMAKE_MAKE_PROGRAM="$venv/bin/ninja" -DCMAKE_CXX_COMPILER_LAUNCHER="$(command -v ccache || true)" \
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
    -DCMAKE_CXX_FLAGS="-idirafter $root/usr/include" -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DNDEBUG" -DSIMDFORMER_WERROR=ON \
    -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF -DPython_EXECUTABLE=/usr/bin/python3 \
    -DPython_INCLUDE_DIR="$root/usr/include/$python" -DPYTHON_MODULE_EXTENSION=".cpython-${version/./}-aarch64-linux-gnu.so" \
    -DPYTHON_MODULE_DEBUG_POSTFIX= -DPYTHON_IS_DEBUG=0
  "$venv/bin/ninja" -C "$here/cmake"
  rm -rf "$site/simdformer" "$site/simdformer_command"
  cp -r python/simdformer python/simdformer_command "$site/"
  rm -f "$site"/simdformer/_core*.so
  cp "$here"/cmake/cpp/_core*.so "$site/simdformer/"
}

run_python() {
  export OPENBLAS_NUM_THREADS=1 PYTHONHOME=$root/usr PYTHONPATH=$site:$PWD PYTHONDONTWRITEBYTECODE=1
  exec qemu-aarch64 -cpu "$1" -L "$root" "$root/usr/bin/$python" "${@:2}"
}

case ${1:-} in
  python)
    install qemu-aarch64 qemu-user
    fetch_python
    ;;
  build)
    install qemu-aarch64 qemu-user
    install aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
    fetch_python
    compile
    ;;
  run)
    run_python "${@:2}"
    ;;
  test)
    # numpy's matmul gives wrong warnings under qemu.
    run_python "$2" -m pytest -p no:cacheprovider -W "ignore:.*encountered in matmul:RuntimeWarning" "${@:3}"
    ;;
  *)
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
    ;;
esac
