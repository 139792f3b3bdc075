"""Imports point down only, and importing the package brings in nothing heavy."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mtlsk"

# from the top down: a module imports modules of lower lines only, never one of its own
LAYERS = [
    "cli",
    "report catalogue plan",
    "importance comparison",
    "seeds verdict",
    "study",
    "choosing fitting",
    "worker",
    "batch lineup stopping",
    "pruning sweep weights_sweep",
    "evaluation",
    "pool results heartbeat",
    "problem sampler tablemodel limits",
    "search folder preparation models tablefile",
    "search_entries trials",
    "storage",
    "trouble studyfile pending",
    "outcome",
    "certification",
    "certificate_report",
    "pareto machine testing findings displays",
    "scorers callbacks",
    "curvature relu",
    "estimators",
    "descent",
    "compatibility",
    "engines aggregators controllers optimizers modules",
    "certificates regularizers decomposition",
    "autodiff linear_graph linear_mtl gramian simplex record taskmap",
    "component datasets",
    "domains whole drawing",
]
RANK = {name: rank for rank, line in enumerate(LAYERS) for name in line.split()}
SIDEWAYS = {("controllers", "engines")}  # the type of the gradients they are handed
TABLES_OF_CONTENTS = {"__init__", "__main__"}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path, package: Path = PACKAGE) -> tuple[str, ...]:
    """Return the parts of a module's name below the package: ("engines", "exact")."""
    parts = path.relative_to(package).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def imported(source: str, here: tuple[str, ...], is_package: bool) -> Iterator[tuple[str, ...]]:
    """Yield what a module imports of mtlsk, anywhere in it, as parts of names below mtlsk."""
    base = here if is_package else here[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            prefix = node.module or ""
            if node.level:
                above = base[: len(base) - node.level + 1]
                prefix = ".".join(["mtlsk", *above, *([prefix] if prefix else [])])
            names = [f"{prefix}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "mtlsk" and rest:
                yield tuple(rest)


def complaints(path: Path, source: str, package: Path = PACKAGE) -> list[str]:
    """Return what is wrong with the imports of one file, one line each."""
    here = dotted(path, package)
    top = here[0]
    if top in TABLES_OF_CONTENTS:
        return []
    if top not in RANK:
        return [f"{path.name}: the module {top!r} is in no layer: add it to LAYERS in {__file__}"]
    found = []
    for parts in imported(source, here, path.name == "__init__.py"):
        other = parts[0]
        if other == top:
            continue
        if other not in RANK:
            found.append(f"{top} imports mtlsk.{other}, which is in no layer of LAYERS")
        elif RANK[other] <= RANK[top] and (top, other) not in SIDEWAYS:
            way = "sideways" if RANK[other] == RANK[top] else "upwards"
            found.append(f"{'.'.join(here)} imports {'.'.join(parts)}: {way}")
    return found


@pytest.mark.parametrize("path", files(), ids=lambda p: ".".join(dotted(p)))
def test_imports_point_down_only(path):
    assert complaints(path, path.read_text()) == []


def test_no_cycle_within_a_folder():
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    known = {dotted(path) for path in files()}
    for path in files():
        here = dotted(path)
        targets = set()
        for parts in imported(path.read_text(), here, path.name == "__init__.py"):
            target = parts
            while target and target not in known:
                target = target[:-1]
            # a folder's table of contents imports its files; those must not import it back
            if target and target[0] == here[0] and target != here:
                targets.add(target)
        graph[here] = targets
    done: set[tuple[str, ...]] = set()

    def visit(node, trail):
        assert node not in trail, f"a cycle of imports: {[*trail, node]}"
        if node not in done:
            for target in graph[node]:
                visit(target, [*trail, node])
            done.add(node)

    for node in graph:
        visit(node, [])


@pytest.mark.parametrize(
    ("name", "source", "word"),
    [
        ("aggregators/x.py", "from mtlsk.descent import Descent", "upwards"),
        ("aggregators/x.py", "import mtlsk.engines.exact", "sideways"),
        ("aggregators/x.py", "from mtlsk import engines", "sideways"),
        ("aggregators/x.py", "from ..engines import Exact", "sideways"),
        ("aggregators/__init__.py", "from ..engines import Exact", "sideways"),
        ("gramian.py", "def f():\n    from mtlsk.simplex import nnls", "sideways"),
        ("gramian.py", "from . import simplex", "sideways"),
        ("engines/x.py", "from mtlsk.controllers import APT", "sideways"),
        ("domains.py", "from mtlsk.component import Component", "upwards"),
        ("newcomer.py", "", "add it to LAYERS"),
        ("cli.py", "from mtlsk.newcomer import x", "in no layer"),
    ],
)
def test_the_check_notices(name, source, word):
    found = complaints(PACKAGE / name, source)
    assert len(found) == 1
    assert word in found[0]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("controllers/x.py", "from mtlsk.engines.base import TaskGradients"),
        ("aggregators/x.py", "from mtlsk.aggregators.base import Aggregator"),
        ("aggregators/x.py", "from .base import Aggregator\nfrom mtlsk.certificates import h"),
        ("cli.py", "from mtlsk import study\nimport torch, mtlsk"),
    ],
)
def test_and_leaves_what_is_allowed(name, source):
    assert complaints(PACKAGE / name, source) == []


def test_only_engines_and_autodiff_call_autograd():
    for path in files():
        if dotted(path)[0] in ("engines", "autodiff"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("torch.autograd", "torch.func"), path


def test_importing_the_package_brings_in_nothing_heavy():
    code = (
        "import sys, mtlsk\n"
        "assert mtlsk.Descent and mtlsk.MultiTaskRegressor\n"
        "heavy = {'optuna', 'matplotlib', 'plotly', 'jinja2', 'pydantic', 'moocore', 'pytest'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
