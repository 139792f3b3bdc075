"""The report of ``certify``: tasks, certificates and findings, as text, table and HTML."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

from mtlsk.certificates import Certificate
from mtlsk.component import closest
from mtlsk.findings import Finding

WIDTH = 100
"""Columns of the text."""
NAMES = 26
"""Of these for the certificates' names."""
TASKS = 20
"""Tasks listed in text and HTML; ``tasks`` has all."""


@dataclass(frozen=True, eq=False)
class CertificateReport:
    """What can be said of a fitted net on some rows.

    Attributes
    ----------
    tasks : DataFrame, indexed by task
        ``labelled`` rows, ``loss``, ``gradient_norm``, and with ``task_scale`` applied
        ``cosine_with_mean`` and the ``min_norm_weight`` of MGDA.
    cosines : DataFrame (K, K)
        Cosines between task gradients, 0 for a task without one.
    certificates : tuple of Certificate
        By name: ``report["pl_bound"]``. Those that are not applicable say why.
    findings : tuple of Finding
        A sentence each, with parameters to try.
    n_rows : int
    """

    tasks: pd.DataFrame
    cosines: pd.DataFrame
    certificates: tuple[Certificate, ...]
    findings: tuple[Finding, ...]
    n_rows: int

    def __getitem__(self, name: str) -> Certificate:
        """Return the certificate of a name; KeyError with the names there are."""
        for certificate in self.certificates:
            if certificate.name == name:
                return certificate
        names = [c.name for c in self.certificates]
        raise KeyError(f"no certificate {name!r}{closest(name, names)}; there are {names}")

    def to_frame(self) -> pd.DataFrame:
        """Return one row a certificate: value (None: not applicable), unit, phi, reason, ..."""
        rows = [
            {
                "name": c.name,
                "value": c.value,
                "applicable": c.applicable,
                "estimated": c.estimated,
                "unit": c.unit,
                "phi": c.phi,
                "meaning": c.meaning,
                "assumptions": "; ".join(c.assumptions),
                "reason": c.reason,
            }
            for c in self.certificates
        ]
        frame = pd.DataFrame(rows)
        frame["value"] = pd.Series([c.value for c in self.certificates], dtype=object)
        return frame.set_index("name")

    def _title(self) -> str:
        k = len(self.tasks)
        return f"Certificates of {k} task{'' if k == 1 else 's'} on {self.n_rows} rows"

    def __str__(self) -> str:
        shown = self.tasks.head(TASKS).copy()
        shown.index = pd.Index([short(name) for name in shown.index], name="task")
        lines = [self._title(), ""]
        lines += [shown.to_string(float_format=lambda v: f"{v:.4g}", index_names=False)]
        if len(self.tasks) > TASKS:
            lines.append(f"... and {len(self.tasks) - TASKS} more in report.tasks")
        lines.append("")
        for finding in self.findings:
            lines += wrapped(f"- {finding.sentence}", 2)
        lines.append("")
        for c in self.certificates:
            lines += wrapped(f"{c.name:<{NAMES}}{said(c)}", NAMES)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        tasks = self.tasks.head(TASKS)
        cells = [
            [str(name), *(f"{v:.4g}" for v in row)]
            for name, row in zip(tasks.index, tasks.itertuples(index=False), strict=True)
        ]
        more = len(self.tasks) - TASKS
        certificates = [
            [
                c.name,
                "not applicable" if c.value is None else f"{c.value:.4g}",
                c.unit,
                c.meaning + (" (estimated: no certificate)" if c.estimated else ""),
                c.reason if c.value is None else "; ".join(rests_on(c)),
            ]
            for c in self.certificates
        ]
        titles = ["certificate", "value", "unit", "meaning", "rests on, or why there is none"]
        return "".join(
            [
                f"<div><p><b>{self._title()}</b></p><ul>",
                *(f"<li>{escape(finding.sentence)}</li>" for finding in self.findings),
                "</ul>",
                table(["task", *map(str, tasks.columns)], cells, numbers=True),
                f"<p>and {more} more in report.tasks</p>" if more > 0 else "",
                table(titles, certificates),
                "</div>",
            ]
        )


def said(c: Certificate) -> str:
    """Return value, unit and meaning of a certificate, or why it is not applicable."""
    if c.value is None:
        return f"not applicable: {c.reason}"
    value = f"{c.value:.4g} {c.unit}".strip()
    estimated = " (estimated: no certificate)" if c.estimated else ""
    phi = "" if c.phi == "-" else f" (Phi: {c.phi})"
    return f"{value}{estimated}: {c.meaning}{phi}"


def rests_on(c: Certificate) -> list[str]:
    """Return the Phi of a certificate and its assumptions."""
    return [*([] if c.phi == "-" else [f"Phi: {c.phi}"]), *c.assumptions]


def wrapped(line: str, indent: int) -> list[str]:
    """Return a line broken at the width, the rest indented."""
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * indent, break_long_words=True)


def short(name: object, width: int = 32) -> str:
    """Return a name cut where it is long, on one line."""
    text = " ".join(str(name).split())
    return text if len(text) <= width else text[: width - 3] + "..."


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Return an HTML table, every cell escaped; ``numbers`` aligns all but the first right."""
    left, right = (f' style="text-align:{side};padding:2px 8px"' for side in ("left", "right"))

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{right if numbers and i else left}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', titles)}</tr></thead><tbody>{body}</tbody></table>"
