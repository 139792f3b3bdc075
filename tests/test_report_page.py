"""The page of a report in a browser: it asks no network, draws, links, sorts, and stays text."""

import json
import re
import shutil
import tomllib
from contextlib import contextmanager

import pytest
from made_results import make_full

from mtlsk.report import write_report
from mtlsk.studyfile import validate

HOSTILE = ["<b>x</b>", "</script><script>window.bad = 1</script>", '"><img src=x onerror="bad=1">']


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = shutil.which("chromium") or (own if shutil.which(own) else None)
        if path is None:
            pytest.skip("no browser: neither chromium on the path nor playwright's own")
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def opened(browser, results, out, width=1280, scheme="light"):
    """Open a report with the network cut; afterwards, nobody has asked for it or complained."""
    if results is not None:
        write_report(results, out)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, said = [], []
    address = (out / "report.html").as_uri()

    def gate(route):
        if route.request.url != address:
            asked.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    context.route("**/*", gate)
    page = context.new_page()
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#scatter .main-svg")
    yield page
    assert asked == []
    assert said == []
    context.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("page")
    write_report(make_full(repeats=3), out)
    return out


def at(page, plot, row):
    """Return where a plot draws a trial's first point, in pixels of the page."""
    return page.evaluate(
        """([plot, row]) => {
          const gd = document.getElementById(plot), box = gd.getBoundingClientRect();
          for (const trace of gd._fullData) {
            const k = (trace.customdata || []).indexOf(row);
            if (k < 0) continue;
            const size = gd._fullLayout._size;
            return [box.left + size.l + gd._fullLayout.xaxis.d2p(trace.x[k]),
                    box.top + size.t + gd._fullLayout.yaxis.d2p(trace.y[k])];
          }
        }""",
        [plot, row],
    )


def data_of(folder):
    text = (folder / "report.html").read_text()
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


def test_the_verdict_comes_first_and_the_plots_hold_the_points(browser, folder):
    with opened(browser, None, folder) as page:
        assert page.text_content(".lead").startswith("The search wins")
        assert page.get_attribute("html", "lang") == "en"
        assert "made" in page.title()
        front = sum(data_of(folder)["front"])
        assert front > 5
        assert page.locator("#scatter .scatterlayer .point").count() >= front
        assert page.locator("#parallel .scatterlayer .point").count() >= 3 * front
        assert page.locator("#trials tbody tr").count() == min(front, 25)


@pytest.mark.parametrize("plot", ["scatter", "parallel"])
def test_a_click_on_a_point_marks_the_trial_everywhere(browser, folder, plot):
    data = data_of(folder)
    with opened(browser, None, folder) as page:
        page.locator(f"#{plot}").scroll_into_view_if_needed()
        row = next(r for r, on in enumerate(data["front"]) if on and r != data["chosen"] and r > 2)
        page.mouse.click(*at(page, plot, row))
        page.wait_for_function(
            f"document.querySelector('tr[aria-selected=true]')?.dataset.row == {row}"
        )
        assert f"trial {data['number'][row]}" in page.text_content("#panel h3")
        # the mark lies on the point in both plots
        marks = page.evaluate(
            "['scatter', 'parallel'].map((id) => document.getElementById(id).layout.shapes"
            ".filter((shape) => shape.name === 'chosen').map((s) => s.xanchor ?? s.path)[0])"
        )
        assert marks[0] == data["columns"]["t0"][row]
        assert marks[1].startswith("M0,")
        assert "± " in page.text_content("#panel")
        assert page.locator("#heat .heatmaplayer image, #heat .heatmaplayer path").count() > 0


def test_a_row_chooses_by_keyboard_and_epochs_slide(browser, folder):
    with opened(browser, None, folder) as page:
        page.locator("#trials tbody tr:nth-child(3) button").focus()
        page.keyboard.press("Enter")
        chosen = page.locator("#trials tbody tr:nth-child(3)")
        assert chosen.get_attribute("aria-selected") == "true"
        number = chosen.locator("button").text_content()
        assert page.text_content("#panel h3").endswith(f"trial {number}")
        assert page.text_content("#said").endswith(f"trial {number} is chosen.")
        assert page.text_content("output") == "6"
        page.locator("#epoch").focus()
        page.keyboard.press("ArrowLeft")
        assert page.text_content("output") == "5"


def test_a_head_sorts_both_ways_and_says_so(browser, folder):
    with opened(browser, None, folder) as page:
        page.select_option("#which", "all")
        assert page.text_content("#count") == "1 to 25 of 70"
        first = {}
        for direction in ("ascending", "descending"):
            page.locator('[data-sort="t1"]').focus()
            page.keyboard.press("Enter")
            head = page.locator("th", has=page.locator('[data-sort="t1"]'))
            assert head.get_attribute("aria-sort") == direction
            index = page.evaluate("COLUMNS.findIndex((column) => column.id === 't1')") + 1
            cells = page.locator(f"#trials tbody td:nth-child({index})").all_text_contents()
            values = [float(c) for c in cells]
            assert values == sorted(values, reverse=direction == "descending")
            first[direction] = values[0]
        assert first["ascending"] < first["descending"]
        page.click("#next")
        assert page.text_content("#count") == "26 to 50 of 70"
        page.select_option("#of", label="single task")
        assert page.text_content("#count") == "1 to 5 of 5"


def test_any_pair_of_axes(browser, folder):
    with opened(browser, None, folder) as page:
        page.select_option("#x-axis", "delta")
        page.select_option("#y-axis", "t2")
        title = page.text_content("#scatter .xtitle")
        assert title.startswith("Δm % against single task")
        assert "test loss task 2" in page.text_content("#scatter .ytitle")


@pytest.mark.parametrize("K", [1, 2, 7])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_no_page_sideways_and_the_dark_is_dark(browser, tmp_path, K, scheme):
    results = make_full(K=K, n=21, objectives=["mean", "worst"] if K == 7 else None)
    with opened(browser, results, tmp_path, width=375, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(re.findall(r"\d+", ground)[0])
        assert red > 200 if scheme == "light" else red < 60
        ink = page.evaluate("document.getElementById('scatter').layout.font.color")
        assert ink == ("#1c2127" if scheme == "light" else "#e6e9ed")


def test_plots_follow_when_the_scheme_changes(browser, folder):
    with opened(browser, None, folder) as page:
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("document.getElementById('scatter').layout.font.color === '#e6e9ed'")


def test_hostile_names_are_text(browser, tmp_path):
    results = make_full(tasks=HOSTILE, name="<i>made</i>", notes=["<script>bad = 1</script>"])
    results.trials.loc[0, ["state", "reason"]] = ["FAIL", "<img src=x onerror=bad=1>"]
    results.trials.loc[2, "param: aggregator"] = "<u>agg</u>"
    with opened(browser, results, tmp_path) as page:
        assert page.evaluate("window.bad") is None
        assert page.text_content("h1") == "<i>made</i>"
        assert page.locator("#trials th").filter(has_text="<b>x</b>").count() > 0
        assert page.locator("main img, main u, main b:not(svg *)").count() == 0
        page.select_option("#which", "all")
        page.click("#trials tbody tr:nth-child(1) button")
        assert "<img src=x" in page.text_content("#panel")
        page.click("#trials tbody tr:nth-child(2) button")
        page.hover("#scatter")
        title = page.text_content("#scatter .xtitle")
        assert "<b>x</b>" in title
        assert page.evaluate("window.bad") is None


@pytest.mark.parametrize("kept", [True, False])
def test_where_there_is_no_trace_or_no_gramian_it_says_why(browser, tmp_path, kept):
    with opened(browser, make_full(**({} if kept else {"traces": {}})), tmp_path) as page:
        page.select_option("#of", label="scalarization")
        page.click("#trials tbody tr:nth-child(1) button")
        said = page.text_content("#training")
        assert ("never form the Gramian" in said) == kept
        assert ("No trace of this trial's training was kept" in said) != kept
        assert page.locator("#heat").count() == 0
        assert page.locator("#weights .scatterlayer").count() == int(kept)


def test_the_study_file_of_a_trial_is_a_study_file(browser, folder):
    data = data_of(folder)
    with opened(browser, None, folder) as page:
        pieces = page.evaluate("repeatFile(D.chosen)")
        assert page.text_content("#repeat pre >> nth=1") == pieces["text"]
    raw = tomllib.loads(pieces["text"])
    file = validate(raw, "made")
    number = data["number"][data["chosen"]]
    expected = {
        k: v for k, v in make_full(repeats=3).estimators["search", number].items() if v is not None
    }
    assert file.estimator == expected
    assert file.search == {}
    assert (file.study.trials, file.study.repeats, file.study.seed) == (1, 3, 7)
    assert file.baselines.scalarization == file.baselines.equal_weights == 0
    assert file.baselines.single_task == 0
    assert file.data.name == "table.csv"
    assert file.data.path is None
    assert "c0ffee" * 10 in pieces["text"]
    assert pieces["command"] == f"mtlsk study run made-search-{number}.toml --data TABLE"


def test_a_page_without_a_complete_trial(browser, tmp_path):
    results = make_full()
    results.trials["state"] = "FAIL"
    results.trials["reason"] = "diverged"
    with opened(browser, results, tmp_path) as page:
        assert page.text_content(".lead").startswith("No comparison")
        assert page.text_content("#panel") == "No trial to show."
        assert page.text_content("#count") == "none"
