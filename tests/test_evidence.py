"""What the README says was found stands in the reports it names, number by number."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*\.?\d*(?![\w])")


def section(title):
    """Return the text under a heading of the README."""
    return re.split(r"^## ", README.split(f"\n## {title}\n")[1], flags=re.M)[0]


def paragraphs():
    """Return (name of the study, text) of each finding on the front page and in its table."""
    found = []
    for text in re.split(r"\n\n|\n(?=\| \[)", section("What was found")):
        names = re.findall(r"\(studies/(\w+)/report\.md\)", text)
        if names:
            found.append((names[0], re.sub(r"\]\([^)]*\)|`[^`]*`", " ", text)))
    return found


@pytest.mark.parametrize(("name", "text"), paragraphs())
def test_every_number_of_a_finding_is_in_its_report(name, text):
    report = (ROOT / "studies" / name / "report.md").read_text()
    there = set(NUMBER.findall(report))
    missing = [number for number in NUMBER.findall(text) if number not in there]
    assert not missing, f"studies/{name}/report.md has no {missing}"
    for quoted in re.findall(r'"([^"]+)"', " ".join(text.split())):
        assert quoted in " ".join(report.replace("**", "").split())


FRONT = [  # study, where the numbers stand in the README, where in its report
    (
        "beyond_scalarization",
        r"\*\* (\d+) aggregators in (\d+) settings, (\d+) seeds,",
        r"^(\d+) aggregators, (\d+) settings, (\d+) seeds,",
    ),
    (
        "beyond_scalarization",
        r"after correction for (\d+) comparisons, and the largest median difference in score is "
        r"([-+][\d.]+\d)",
        r"all settings\n.*?after correction for (\d+) comparisons.*?"
        r"in mean score is ([-+][\d.]+\d)",
    ),
    (
        "beyond_scalarization",
        r"more than ([\d.]+) times the shortest.*? more than ([\d.]+) of score",
        r"a gain above (?=([\d.]+) where \*norm ratio\* is above ([\d.]+\d))",
    ),
    ("beyond_scalarization", r"right in (\d+)% of the runs on", r"put aside it is right in (\d+)%"),
    (
        "beyond_scalarization",
        r"badly scaled SARCOS ([\d.]+) of R² against ([\d.]+) with",
        r"\n\| sarcos, badly scaled \| ([\d.]+) ±[^|]*\|[^|]*\| ([\d.]+) ±",
    ),
    (
        "scalarization_linear",
        r"error of ([\d.]+) on its worst task; of all weights tried the best has ([\d.]+\d)",
        r"\| SARCOS 1, 4, 5 \| no \| ([\d.]+) \| ([\d.]+) \|",
    ),
    (
        "scalarization_linear",
        r"MGDA ends there in (\d) of its runs, a Tchebycheff loss in (\d) of (\d)",
        r"(?s)balanced: MGDA (\d).*?Tchebycheff in (\d) of (\d) runs",
    ),
]


@pytest.mark.parametrize(("name", "here", "there"), FRONT, ids=range(len(FRONT)))
def test_the_front_page_has_the_very_numbers_of_its_reports(name, here, there):
    report = (ROOT / "studies" / name / "report.md").read_text()
    text = " ".join(section("What was found").split())
    shown = re.search(here, text).groups()
    found = re.search(there, report, flags=re.S | re.M).groups()
    assert sorted(shown) == sorted(found)


def test_the_front_page_shows_findings_with_their_pictures():
    text = section("What was found")
    pictures = re.findall(r"!\[[^\]]+\]\((studies/[^)]+\.png)\)", text)
    assert len(pictures) >= 2
    for picture in pictures:
        assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")
    assert README.index("## What was found") < README.index("## Seeing conflict")
    assert len(paragraphs()) >= 8


def test_every_report_is_named_and_dated():
    named = set(re.findall(r"studies/(\w+)/report\.md", README))
    reports = sorted((ROOT / "studies").glob("*/report.md"))
    assert {path.parent.name for path in reports} == named
    for path in reports:
        text = path.read_text()
        assert re.search(r"\d{4}-\d\d-\d\d", text), path.parent.name
        assert "mtlsk" in text
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
            assert (path.parent / picture).is_file(), f"{path.parent.name}/{picture}"


def test_the_readme_says_what_is_not_covered():
    text = section("What is not covered")
    for word in ("Images", "PINN", "Reinforcement"):
        assert word in text
