"""Information about compiled object files."""

from __future__ import annotations

import re
import shutil
import subprocess

_JUMP = re.compile(r"j\w+|b(\.\w+)?|[ct]bn?z")  # of x86-64 and AArch64


def run(*command):
    assert shutil.which(command[0]), (
        f"{command[0]} is missing: it comes with the compiler (binutils)"
    )
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def objects_in(folder):
    """The object files of a build, by the path of their source under cpp/ without its suffix."""
    found = {}
    for path in folder.rglob("*.cpp.o"):
        name = path.relative_to(folder).as_posix().split(".dir/", 1)[1].removesuffix(".cpp.o")
        found[name] = path
    return found


def innermost_loops(listing):
    """The bodies of innermost loops, as lists of (mnemonic, operands)."""
    code = []  # (address, mnemonic, operands)
    for text in listing.splitlines():
        match = re.match(r"^\s+([0-9a-f]+):\t(\S+)(?:\s+(.*))?$", text)
        if match:
            code.append((int(match[1], 16), match[2], match[3] or ""))
    place = {address: index for index, (address, _, _) in enumerate(code)}
    loops = []
    for index, (address, mnemonic, operands) in enumerate(code):
        target = re.search(r"(?:^|\s)([0-9a-f]+) <", operands)
        if not _JUMP.fullmatch(mnemonic) or not target:
            continue
        start = place.get(int(target[1], 16), index + 1)
        if start <= index and int(target[1], 16) <= address:
            loops.append((start, index))
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return [[code[i][1:] for i in range(start, end + 1)] for start, end in inner]
