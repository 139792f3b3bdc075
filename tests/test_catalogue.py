"""What there is, as text and tables; the README's tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mtlsk import cli
from mtlsk.aggregators import AGGREGATORS
from mtlsk.catalogue import KINDS, TABLES, as_markdown, as_text
from mtlsk.cli.lists import LISTS
from mtlsk.controllers import CONTROLLERS

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_command_line_knows_every_kind():
    assert set(LISTS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_has_a_sentence(kind):
    entries = KINDS[kind]()
    assert len(entries) >= (1 if kind == "regularizers" else 3)
    for name, sentence, _ in entries:
        assert sentence.endswith("."), name
        assert name in as_text(kind)
    assert "inspect._empty" not in as_text(kind)  # what has no default is no choice


@pytest.mark.parametrize("kind", ["aggregators", "controllers"])
def test_the_table_in_the_readme_is_that_of_the_code(kind):
    marker = f"<!-- mtlsk list {kind} --markdown -->\n"
    assert marker in README
    table = re.match(r"(\|.*\n)+", README.split(marker)[1])
    assert table is not None
    assert table[0].rstrip("\n") == as_markdown(kind)


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_has_a_row_a_member_and_no_broken_cell(kind):
    titles, _, *rows = as_markdown(kind).splitlines()
    assert len(rows) == len(TABLES[kind][0].members())
    for row in [titles, *rows]:
        cells = re.split(r"(?<!\\)\|", row)[1:-1]
        assert len(cells) == len(TABLES[kind][1]), row


def test_rows_say_source_needs_and_claims():
    rows = {row.split("`")[1]: row for row in as_markdown("aggregators").splitlines()[2:]}
    assert "Liu et al. 2021" in rows["CAGrad"]
    assert "| G |" in rows["CAGrad"]
    assert "| losses, losses after |" in rows["FAMO"]
    assert "| losses, random |" in rows["RandomWeighting"]
    assert "non-conflicting, simplex, stationary" in rows["MGDA"]
    assert len(rows) == len(AGGREGATORS.members())
    assert len(as_markdown("controllers").splitlines()) == len(CONTROLLERS.members()) + 2


def test_the_text_says_what_an_aggregator_claims():
    text = as_text("aggregators")
    assert "NashMTL\n" in text
    assert "      properties: non-conflicting, scale-invariant, stationary\n" in text


def test_what_has_no_table_says_so(capsys):
    assert cli.main(["list", "scorers", "--markdown"]) == 2
    assert (
        "no table of scorers; tables: aggregators, controllers, engines" in capsys.readouterr().err
    )
    assert cli.main(["list", "controllers", "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| `controller=`")
