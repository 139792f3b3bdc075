"""What there is, from the code: names, sentences, parameters and their domains, tables."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from mtlsk.aggregators import AGGREGATORS, Aggregator
from mtlsk.controllers import CONTROLLERS, Controller
from mtlsk.datasets import MAKERS
from mtlsk.engines import AUTO, ENGINES, Engine
from mtlsk.optimizers import OPTIMIZERS
from mtlsk.regularizers import REGULARIZERS
from mtlsk.scorers import SCORERS


class Entry(NamedTuple):
    """One thing there is: its name, one sentence, and a line a parameter."""

    name: str
    sentence: str
    lines: list[str]


def sentence_of(obj: Any) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join((inspect.getdoc(obj) or "").split("\n\n")[0].split())


def parameters_of(cls: Any) -> list[str]:
    """Return ``name = default: domain`` for each parameter of a class."""
    domains = getattr(cls, "domains", {})
    return [
        f"{p.name} = {p.default!r}: {domains.get(p.name, 'anything')}"
        for p in inspect.signature(cls).parameters.values()
        if p.kind is not p.VAR_KEYWORD and p.name != "params"
    ]


def _components(registry: Any, *facts: str) -> list[Entry]:
    entries = []
    for name, cls in sorted(registry.members().items(), key=lambda item: item[0].lower()):
        known = [f"{fact}: {getattr(cls, fact)}" for fact in facts if getattr(cls, fact)]
        if registry is AGGREGATORS and (claims := cls().properties):
            known.append(f"properties: {', '.join(sorted(claims))}")
        entries.append(Entry(name, sentence_of(cls), [*known, *parameters_of(cls)]))
    return entries


def _engines() -> list[Entry]:
    line = "for gramian=, like the others; any of them as a dict too: every = 4"
    named = [e._replace(name=e.name.lower()) for e in _components(ENGINES, "cost", "error")]
    return [Entry("auto", AUTO, [line]), *named]


KINDS: dict[str, Callable[[], list[Entry]]] = {
    "aggregators": lambda: _components(AGGREGATORS, "paper", "cost"),
    "controllers": lambda: _components(CONTROLLERS, "paper"),
    "engines": _engines,
    "regularizers": lambda: _components(REGULARIZERS),
    "optimizers": lambda: _components(OPTIMIZERS),
    "scorers": lambda: [Entry(name, sentence_of(f), []) for name, f in SCORERS.items()],
    "data": lambda: [
        Entry(n, sentence_of(f), [f"{n}{inspect.signature(f)}"]) for n, f in MAKERS.items()
    ],
}
"""Kind -> its entries."""


def as_text(kind: str) -> str:
    """Return the members of a kind with a sentence each and their parameters."""
    rows = []
    for name, sentence, lines in KINDS[kind]():
        rows += [name, f"    {sentence}", *(f"      {line}" for line in lines)]
    return "\n".join(rows)


def _needs(cls: type[Aggregator]) -> str:
    words = "losses" if cls.needs == "losses" else "G"
    words += ", losses after" if cls.needs_losses_after else ""
    return words + (", random" if cls.stochastic else "")


def _aggregator_row(cls: type[Aggregator]) -> list[str]:
    claims = ", ".join(sorted(cls().properties))
    return [f"`{cls.__name__}`", sentence_of(cls), cls.paper, _needs(cls), cls.cost, claims]


def _controller_row(cls: type[Controller]) -> list[str]:
    needs = "G" if cls().needs_gramian else ""
    return [f"`{cls.__name__}`", sentence_of(cls), cls.paper, needs]


def _engine_row(cls: type[Engine]) -> list[str]:
    return [f"`{cls.__name__}`", sentence_of(cls), cls.cost, cls.error]


TABLES: dict[str, tuple[Any, list[str], Callable[[Any], list[str]]]] = {
    "aggregators": (
        AGGREGATORS,
        ["`aggregator=`", "the update", "source", "needs", "cost of the weights", "properties"],
        _aggregator_row,
    ),
    "controllers": (
        CONTROLLERS,
        ["`controller=`", "what it does", "source", "needs"],
        _controller_row,
    ),
    "engines": (ENGINES, ["`gramian=`", "what it does", "cost", "error"], _engine_row),
}
"""Kinds with a table: registry, column titles, a member's cells."""


def as_markdown(kind: str) -> str:
    """Return the table of a kind for a page.

    Raises
    ------
    ValueError
        For a kind without a table.
    """
    if kind not in TABLES:
        raise ValueError(f"there is no table of {kind}; tables: {', '.join(TABLES)}")
    registry, titles, row = TABLES[kind]
    members = sorted(registry.members().items(), key=lambda item: item[0].lower())
    rows = [titles, ["---"] * len(titles), *(row(cls) for _, cls in members)]
    cells = [[re.sub(r"([|<*])", r"\\\1", cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
