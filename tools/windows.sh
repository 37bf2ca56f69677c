#!/usr/bin/env bash
# usage: tools/windows.sh python
#        tools/windows.sh run [ARGUMENT ...]
# python: puts together CPython 3.11 for Windows x86-64, with headers and an import library, on x86-64 Debian 12. run:
# starts it under wine, which is installed. The DLLs come from PyPI's panda3d, Python files and headers from Debian's
# source, wine from Debian. All files are kept in build/windows. python needs PYTHON, a CPython with the group wheels.
# The folders of PYTHONPATH are separated by colons.
set -euo pipefail
root=$(realpath "$(dirname "$0")/..")
here=$root/build/windows
home=$here/python
pip=("${PYTHON:-python3}" -m pip -q --disable-pip-version-check)
zig=("${PYTHON:-python3}" -m ziglang)

# The names that a DLL exports.
exports() { objdump -p "$1" | awk '/\[Ordinal\/Name Pointer\]/ {on = 1; next} NF == 0 {on = 0} on {print $NF}'; }

# Import libraries have only names, so they are made from the DLL.
make_libraries() {
  printf '%s\n' "LIBRARY python311.dll" EXPORTS "$(exports "$home/python311.dll")" >"$here/python311.def"
  "${zig[@]}" dlltool -m i386:x86-64 -d "$here/python311.def" -l "$here/libpython311.a" -D python311.dll
  # The stable ABI is the same functions under another name.
  printf '%s\n' "LIBRARY python3.dll" EXPORTS >"$here/python3.def"
  exports "$home/python311.dll" | sed 's/.*/& = python311.&/' >>"$here/python3.def"
  echo 'int __stdcall DllMain(void* library, unsigned reason, void* unused) {
  (void)library; (void)reason; (void)unused;
  return 1;
}' >"$here/python3.c"
  "${zig[@]}" cc -target x86_64-windows-gnu -shared "$here/python3.c" "$here/python3.def" -o "$home/python3.dll"
}

make_programs() {
  echo 'int Py_Main(int, unsigned short**);
int wmain(int count, unsigned short** arguments) { return Py_Main(count, arguments); }' >"$here/python.c"
  "${zig[@]}" cc -target x86_64-windows-gnu -municode "$here/python.c" "$here/libpython311.a" -o "$home/python.exe"
  # A DLL of Windows that wine 8 lacks and that extensions in Rust need.
  echo 'unsigned char SystemFunction036(void*, unsigned long);
__declspec(dllexport) int __stdcall ProcessPrng(unsigned char* p, unsigned long long n) {
  return SystemFunction036(p, (unsigned long)n);
}' >"$here/random.c"
  "${zig[@]}" cc -target x86_64-windows-gnu -shared "$here/random.c" -ladvapi32 -o "$home/bcryptprimitives.dll"
}

# Without the DLLs of Windows, which wine has, and without Tk.
copy_python() {
  local unpacked=$here/unpacked source
  rm -rf "$home" "$unpacked" "$here/include"
  mkdir -p "$home/DLLs"
  "${pip[@]}" download --no-deps --only-binary :all: --platform win_amd64 --python-version 3.11 --implementation cp \
    -d "$here" panda3d
  "${PYTHON:-python3}" -m zipfile -e "$here"/panda3d-*.whl "$unpacked"
  rm "$unpacked"/deploy_libs/{api-ms-*,tcl*,tk*,_tkinter*}
  mv "$unpacked"/deploy_libs/{python311.dll,VCRUNTIME140.dll} "$home"
  mv "$unpacked"/deploy_libs/* "$home/DLLs"
  "$root/tools/unpack_debian.sh" source "$here" python3.11
  tar -C "$unpacked" -xf "$here"/python3.11_*.orig.tar.*
  source=$(echo "$unpacked"/Python-3.11.*)
  mv "$source/Lib" "$home/Lib"
  mv "$source/Include" "$here/include"
  mv "$source/PC/pyconfig.h" "$here/include"
  rm -rf "$unpacked"
}

install_wine() {
  if [ ! -x /usr/lib/wine/wine64 ]; then
    local sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" apt-get install -y -qq --no-install-recommends wine64 >/dev/null
  fi
  export WINEPREFIX=$here/wine WINEARCH=win64 WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml="
  [ ! -e "$WINEPREFIX/system.reg" ] || return 0
  /usr/lib/wine/wine64 wineboot -i
  /usr/lib/wine/wine64 reg add 'HKCU\Software\Wine' /v Version /d win10 /f
  /usr/lib/wine/wine64 "$home/python.exe" -m ensurepip
  /usr/lib/wine/wine64 "$home/python.exe" -m pip install --upgrade pip
}

case ${1:-} in
  python)
    [ ! -e "$home/bcryptprimitives.dll" ] || exit 0
    copy_python
    make_libraries
    make_programs
    ;;
  run)
    install_wine < <(:) > >(cat >"$here/wine.log") 2>&1
    # wine 8 passes pipes and terminals to a program, but no open files.
    [ -p /dev/stdin ] || [ -t 0 ] || exec < <(cat)
    [ -p /dev/stdout ] || [ -t 1 ] || exec > >(cat)
    [ -p /dev/stderr ] || [ -t 2 ] || exec 2> >(cat >&2)
    PYTHONPATH=${PYTHONPATH:+${PYTHONPATH//:/;}} OPENBLAS_NUM_THREADS=1 /usr/lib/wine/wine64 "$home/python.exe" "${@:2}"
    ;;
  *)
    sed -n '2,7s/^# //p' "$0" >&2
    exit 2
    ;;
esac
