"""_core.pyi and the extension have the same names, so type checkers see what exists."""

from __future__ import annotations

import ast

import pytest

from simdformer import _core
from tests.support import ROOT

STUB = ast.parse((ROOT / "python" / "simdformer" / "_core.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


def functions(body):
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def test_functions_and_classes_are_those_of_the_stub():
    there = {name for name in dir(_core) if not name.startswith("_")}
    assert there == set(CLASSES) | set(functions(STUB.body))


@pytest.mark.parametrize("name", CLASSES)
def test_methods_are_those_of_the_stub(name):
    there = {member for member in vars(getattr(_core, name)) if not member.startswith("_")}
    assert there == set(functions(CLASSES[name].body)) - {"__init__"}


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_are_those_of_the_stub(name):
    for method, node in functions(CLASSES[name].body).items():
        if node.decorator_list:
            continue
        # pybind11 starts docstrings with the signature: name(self: ..., weight: ..., ...)
        signature = getattr(_core, name).__dict__[method].__doc__
        arguments = [*node.args.args, *node.args.kwonlyargs]
        for argument in arguments[1:]:
            assert f" {argument.arg}: " in signature, f"{name}.{method} lacks {argument.arg}"
        assert ("*, " in signature) == bool(node.args.kwonlyargs), f"{name}.{method}"
