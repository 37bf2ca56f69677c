#!/usr/bin/env bash
# usage: tools/musl_python.sh ARCHITECTURE
# Builds CPython for musl, of the version of Debian's python3, on x86-64 Debian: build/musl/ARCHITECTURE/python.
# ARCHITECTURE is x86_64 or aarch64. The source, musl and zlib come from Debian. Modules that need other libraries (ssl,
# ctypes, sqlite3) are left out. It takes three minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
architecture=$1
triplet=$architecture-linux-musl
here=$PWD/build/musl/$architecture
root=$here/root
version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ ! -x "$here/python/bin/python$version" ] || exit 0

case $architecture in
  x86_64) debian=amd64 gcc=gcc ;;
  aarch64) debian=arm64 gcc=aarch64-linux-gnu-gcc ;;
  *)
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
    ;;
esac

# A compiler for musl: Debian's, with the unpacked headers and libraries. It names the platform as configure does.
make_compiler() {
  tools/unpack_debian.sh "$debian" "$here" --no-deps musl musl-dev zlib1g-dev
  # Debian has it in /lib. With libc.a alone, Python could load no extension.
  ln -sf "$root/lib/$triplet/libc.so" "$root/usr/lib/$triplet/"
  # zlib in a folder of its own, without the headers of glibc. libz.a needs only functions that musl has too.
  mkdir -p "$here/zlib"
  cp "$root"/usr/include/{zlib,zconf}.h "$root"/usr/lib/*/libz.a "$here/zlib/"
  sed "s#/usr/#$root/usr/#g; s#/lib/ld-musl#$root/lib/ld-musl#" "$root/usr/lib/$triplet/musl-gcc.specs" >"$here/musl.specs"
  cat >"$here/cc" <<END
#!/bin/sh
case "\$*" in *-print-multiarch) echo $triplet; exit;; esac
exec $gcc "\$@" -specs $here/musl.specs
END
  chmod +x "$here/cc"
}

# As a cross-compilation, which searches no folder of the host. configure takes the name of the C library from --build;
# pkg-config would find the libraries of the host.
# Joined by &&, because the caller's || turns off set -e.
compile() {
  tar xf "$here"/python*.orig.tar.* -C "$here" &&
  cd "$here"/Python-"$version".*/ &&
  CC=$here/cc AR=/usr/bin/ar READELF=/usr/bin/readelf CFLAGS="-O1 -g0" \
    PKG_CONFIG=/bin/false ZLIB_CFLAGS="-I$here/zlib" ZLIB_LIBS="-Wl,--exclude-libs,ALL $here/zlib/libz.a" \
    ./configure --quiet --prefix="$here/python" --host="$triplet" --build=x86_64-debian-linux-musl \
    --with-build-python=/usr/bin/python3 --without-ensurepip --disable-test-modules \
    ac_cv_file__dev_ptmx=no ac_cv_file__dev_ptc=no ac_cv_buggy_getaddrinfo=no &&
  make --silent -j2 &&
  make --silent install
}

mkdir -p "$here"
make_compiler
tools/unpack_debian.sh source "$here" "python$version"
compile >"$here/log" 2>&1 || {
  tail -30 "$here/log" >&2
  exit 1
}
