"use strict";
// What is chosen, the table, and what ties them to the plots.
const $ = (id) => document.getElementById(id);
const PAGE = 25;
const state = { chosen: D.chosen, x: D.axes[0].id, y: D.axes[1] && D.axes[1].group === D.axes[0].group ? D.axes[1].id : null, sort: null, up: true, page: 0 };
if (state.y === null) [state.x, state.y] = ["number", D.axes[0].id];

const PARALLEL = TESTS.length > 2 && FRONTS.flat().length > 0;

// ---- the table
const COLUMNS = [
  { id: "study", name: "study", words: true, of: (row) => D.studies[D.study[row]].name, key: (row) => D.study[row] },
  { id: "number", name: "trial", of: (row) => D.number[row] },
  { id: "state", name: "state", words: true, of: (row) => (D.front[row] ? (D.undominated[row] ? "front, undominated" : "front") : D.state[row] === "COMPLETE" ? "complete" : D.state[row] === "FAIL" ? "failed" : "pruned"), key: (row) => (D.front[row] ? 1 - D.undominated[row] : { COMPLETE: 2, PRUNED: 3 }[D.state[row]] || 4) },
  ...D.axes.filter((axis) => !["other", "validation losses"].includes(axis.group)).map((axis) => ({ id: axis.id, name: axis.label, axis })),
  ...D.axes.filter((axis) => ["delta", "seconds"].includes(axis.id)).map((axis) => ({ id: axis.id, name: axis.id === "delta" ? "Δm %" : axis.label, axis })),
  { id: "parameters", name: "parameters", wide: true, of: (row) => D.text[row] || D.reason[row] },
];
for (const column of COLUMNS) {
  if (column.axis) column.of = (row) => number(value(column.id, row));
  column.key ??= column.axis ? (row) => value(column.id, row) : column.of;
}
let shown = [];

function filter() {
  const front = $("which").value === "front";
  const study = $("of").value;
  shown = [];
  for (let row = 0; row < N; row++) {
    if ((!front || D.front[row]) && (study === "" || D.study[row] === Number(study))) shown.push(row);
  }
  const column = COLUMNS.find((each) => each.id === state.sort);
  if (column) {
    const direction = state.up ? 1 : -1;
    shown.sort((a, b) => {
      const [x, y] = [column.key(a), column.key(b)];
      if (x === null || y === null) return (x === null) - (y === null); // without a value: last either way
      return direction * (is(x) && is(y) ? x - y : String(x).localeCompare(String(y)));
    });
  }
}

function drawTable() {
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  state.page = Math.min(Math.max(state.page, 0), pages - 1);
  const from = state.page * PAGE;
  const rows = shown.slice(from, from + PAGE);
  const body = rows.map((row) => {
    const tr = element("tr", { "data-row": row, "aria-selected": String(row === state.chosen) });
    for (const column of COLUMNS) {
      const td = element("td", column.wide || column.words ? { class: column.wide ? "words" : "" } : {});
      if (column.words) td.style.textAlign = "left";
      if (column.id === "study") {
        const look = D.studies[D.study[row]];
        td.append(element("span", { "aria-hidden": "true", style: `color: ${colour(look)}` }, `${look.sign} `));
      }
      td.append(column.id === "number" ? element("button", { type: "button", "aria-label": `Show ${title(row)}` }, column.of(row)) : String(column.of(row) ?? ""));
      tr.append(td);
    }
    return tr;
  });
  $("trials").tBodies[0].replaceChildren(...body);
  $("count").textContent = shown.length ? `${from + 1} to ${from + rows.length} of ${shown.length}` : "none";
  $("previous").disabled = state.page === 0;
  $("next").disabled = state.page >= pages - 1;
}

function drawHead() {
  $("trials").tHead.replaceChildren(element("tr", {}, ...COLUMNS.map((column) => {
    const on = state.sort === column.id;
    const th = element("th", { scope: "col", "aria-sort": on ? (state.up ? "ascending" : "descending") : "none", class: column.wide || column.words ? "words" : "" });
    const button = element("button", { type: "button", "data-sort": column.id }, column.name, element("span", { class: "arrow", "aria-hidden": "true" }, on ? (state.up ? " ↑" : " ↓") : ""));
    button.addEventListener("click", () => {
      state.up = on ? !state.up : true;
      state.sort = column.id;
      state.page = 0;
      filter(); drawHead(); drawTable();
      $("trials").querySelector(`[data-sort="${column.id}"]`).focus();
    });
    th.append(button);
    return th;
  })));
}

function refilter() { state.page = 0; filter(); drawTable(); }
$("which").addEventListener("change", refilter);
$("of").addEventListener("change", refilter);
$("previous").addEventListener("click", () => { state.page--; drawTable(); });
$("next").addEventListener("click", () => { state.page++; drawTable(); });
$("trials").tBodies[0].addEventListener("click", (event) => {
  const tr = event.target.closest("tr");
  if (tr) choose(Number(tr.dataset.row), event.target.tagName === "BUTTON");
});

// ---- choosing
function choose(row, keepFocus = false) {
  state.chosen = row;
  const at = shown.indexOf(row);
  if (at >= 0) state.page = Math.floor(at / PAGE);
  drawTable();
  mark();
  showPanel(row);
  $("said").textContent = `${title(row)} is chosen.`;
  if (keepFocus) $("trials").querySelector(`tr[data-row="${row}"] button`)?.focus();
}

function drawPlots() {
  drawScatter(state.x, state.y, $("whole").checked);
  if (PARALLEL) drawParallel();
  mark();
}

function mark() {
  markScatter(state.x, state.y, state.chosen);
  if (PARALLEL) markParallel(state.chosen);
}

function clicked(event) {
  const row = event.points.map((point) => point.customdata).find(is);
  if (row !== undefined) choose(row);
}

// ---- the controls and the legend
function fill(select, chosen) {
  for (const group of [...new Set(D.axes.map((axis) => axis.group))]) {
    const box = element("optgroup", { label: group });
    for (const axis of D.axes.filter((each) => each.group === group)) box.append(element("option", { value: axis.id }, axis.label));
    select.append(box);
  }
  select.value = chosen;
}
fill($("x-axis"), state.x);
fill($("y-axis"), state.y);
$("x-axis").addEventListener("change", (event) => { state.x = event.target.value; drawPlots(); });
$("y-axis").addEventListener("change", (event) => { state.y = event.target.value; drawPlots(); });
$("whole").addEventListener("change", drawPlots);

const used = D.studies.map((_, study) => D.study.includes(study));
$("of").append(element("option", { value: "" }, "every study"));
D.studies.forEach((look, study) => { if (used[study]) $("of").append(element("option", { value: study }, look.name)); });

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, v] of Object.entries(attributes)) made.setAttribute(name, v);
  made.append(...children);
  return made;
}

function drawLegend() {
  $("legend").replaceChildren(...D.studies.flatMap((look, study) => {
    if (!used[study] || (study === 3 && !Object.keys(D.base).length)) return [];
    const c = colour(look);
    const line = svg("line", { x1: 0, x2: 34, y1: 8, y2: 8, stroke: c, "stroke-width": 2, "stroke-dasharray": DASHES[look.dash] });
    const sign = svg("text", { x: 17, y: 13, "text-anchor": "middle", "font-size": 15, fill: c });
    sign.textContent = look.sign;
    return [element("li", {}, svg("svg", { width: 34, height: 16, "aria-hidden": "true" }, line, sign), study === 3 ? "best single-task nets" : look.name)];
  }));
}

function draw() {
  drawLegend(); drawTable(); drawPlots(); showPanel(state.chosen);
}

$("parallel-card").hidden = !PARALLEL;
if (LINED.flat().length < FRONTS.flat().length) $("lined").textContent = `${LINED.flat().length} of ${FRONTS.flat().length} front points are drawn, evenly over each front.`;
filter(); drawHead(); draw();
$("scatter").on("plotly_click", clicked);
if (PARALLEL) $("parallel").on("plotly_click", clicked);
darkness.addEventListener("change", draw);
