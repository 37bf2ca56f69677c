# SPDX-License-Identifier: Apache-2.0
"""The nodes of a Ray cluster: do they compute the same bits, and how many CPUs does an actor use?"""

from __future__ import annotations

import platform
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# Per node, for the tasks that read, skip rows of a checkpoint, and write; else they could not start.
_CPUS_LEFT = 3


@dataclass(frozen=True)
class Machine:
    """A node of the cluster, with the properties that determine the bits of its results."""

    address: str
    version: str
    architecture: str
    levels: tuple[str, ...]
    model: str


def describe_machine(model: str) -> Machine:
    """The machine that runs this, and the digest of the model's folder there."""
    from simdformer import __version__, show_config
    from simdformer.folder.digest import folder_digest
    from simdformer.folder.resolve import resolve_model

    return Machine(
        address=socket.gethostname(),
        version=__version__,
        architecture=platform.machine(),
        levels=tuple(show_config("dicts")["isa"]["available"]),
        model=folder_digest(resolve_model(model)),
    )


def common_level(machines: Sequence[Machine], level: str | None) -> str:
    """The requested level, or the widest that all machines have. ValueError as in `embed`."""
    first = machines[0]
    for name in ("version", "architecture", "model"):
        for machine in machines:
            own, other = getattr(first, name), getattr(machine, name)
            if own != other:
                raise ValueError(
                    f"the nodes must have one {name}: {first.address} has {own},"
                    f" {machine.address} has {other}"
                )
    common = [each for each in first.levels if all(each in m.levels for m in machines)]
    if level is None and common:
        return common[-1]
    if level not in common:
        known = ", ".join(f"{m.address}: {' '.join(m.levels)}" for m in machines)
        asked = "no common instruction set level" if level is None else f"no level {level!r}"
        raise ValueError(f"the nodes have {asked} ({known})")
    return level


def active_level() -> str:
    """The instruction set level of this process."""
    from simdformer import show_config

    return str(show_config("dicts")["isa"]["active"])


def nodes_with_cpus(ray: Any) -> list[dict[str, Any]]:
    """The nodes with CPUs."""
    if not ray.is_initialized():
        ray.init()
    found = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not found:
        raise ValueError("no node of the cluster has CPUs")
    return found


def describe_machines(ray: Any, nodes: list[dict[str, Any]], model: str) -> list[Machine]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    describe = ray.remote(num_cpus=0)(describe_machine)
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    calls = [describe.options(scheduling_strategy=place).remote(model) for place in places]
    found: list[Machine] = ray.get(calls)
    return found


def cpus_and_threads(
    nodes: list[dict[str, Any]], num_actors: int, num_cpus: float | None
) -> tuple[float, int]:
    """The CPUs that an actor reserves, and its number of threads."""
    if num_actors < 1:
        raise ValueError(f"num_actors must be at least 1, got {num_actors}")
    if num_cpus is not None:
        if num_cpus <= 0:
            raise ValueError(f"num_cpus must be above 0, got {num_cpus}")
        return num_cpus, max(int(num_cpus), 1)
    cpus = min(node["Resources"]["CPU"] for node in nodes)
    per_node = -(-num_actors // len(nodes))
    reserved = max(cpus - _CPUS_LEFT, 0.01) / per_node
    return (int(reserved) if reserved >= 1 else reserved), max(int(cpus // per_node), 1)
