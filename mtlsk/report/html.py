"""The page to explore: one file with its data, styles and scripts in it, that asks no network."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mtlsk.comparison import Fronts
from mtlsk.importance import Importance
from mtlsk.outcome import Results
from mtlsk.report.data import page_data
from mtlsk.report.markdown import facts, failures, importance_note, indicators, notes


def html_page(
    results: Results,
    fronts: Fronts,
    verdict: tuple[list[str], list[str]],
    shares: Importance | None,
) -> str:
    """Return the whole page; all names and texts of the study are escaped in it."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    head, rows = indicators(results, fronts)
    return environment.from_string(_resource("template.html.j2")).render(
        name=results.name,
        date=results.date,
        data_name=results.data_name,
        objectives=results.directions(),
        verdict=verdict[0],
        points=verdict[1],
        head=head,
        rows=rows,
        notes=notes(results, fronts),
        shares=_shares(shares),
        importance_note=importance_note(shares) if shares is not None else "",
        failures=failures(results),
        facts={k: v.replace("`", "") for k, v in facts(results).items()},
        said=results.notes,
        css=Markup(_resource("page.css")),
        plotly=Markup(get_plotlyjs()),
        scripts=[Markup(_resource(name)) for name in ("plots.js", "panel.js", "page.js")],
        data=_embedded(page_data(results, fronts)),
    )


def _resource(name: str) -> str:
    return files("mtlsk.report").joinpath(name).read_text(encoding="utf-8")


def _embedded(data: dict[str, Any]) -> Markup:
    """Return JSON that cannot end the script element that it stands in."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _shares(shares: Importance | None) -> dict[str, Any] | None:
    if shares is None:
        return None
    return {
        "objectives": [str(c) for c in shares.shares.columns],
        "rows": [
            (name, [float(v) for v in values], shares.trials[name])
            for name, values in zip(shares.shares.index, shares.shares.to_numpy(), strict=True)
        ],
    }
