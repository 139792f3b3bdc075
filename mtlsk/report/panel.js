"use strict";
// The panel of the chosen trial. Everything from the study goes in as text nodes.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, v] of Object.entries(attributes)) made.setAttribute(name, v);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

const panel = document.getElementById("panel");
const training = document.getElementById("training");
const repeat = document.getElementById("repeat");

function smallTable(head, rows) {
  const cells = (tag, row) => row.map((cell, k) => element(k ? tag : "th", { scope: k ? "col" : "row" }, cell));
  const body = rows.map((row) => element("tr", {}, ...cells("td", row)));
  body.forEach((tr) => tr.querySelectorAll("td").forEach((td) => td.removeAttribute("scope")));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...cells("th", head))), element("tbody", {}, ...body));
  return element("div", { class: "scroll", tabindex: "0" }, table);
}

function measured(id, row) {
  if (!AXIS[id]) return "–";
  const found = D.spreads && D.spreads[id] && D.spreads[id][row];
  const made = element("span", {}, number(value(id, row)));
  if (is(found)) made.append(element("br"), element("small", { class: "muted" }, `± ${number(Number(found.toPrecision(2)))}`));
  return made;
}

function showPanel(row) {
  training.replaceChildren();
  repeat.replaceChildren();
  if (row === null) {
    panel.replaceChildren(element("p", { class: "muted" }, "No trial to show."));
    return;
  }
  const look = D.studies[D.study[row]];
  const sign = element("span", { "aria-hidden": "true", style: `color: ${colour(look)}` }, `${look.sign} `);
  const chips = [];
  if (D.state[row] !== "COMPLETE") chips.push(D.state[row] === "PRUNED" ? "pruned" : "failed");
  if (D.front[row]) chips.push("on its front");
  if (D.front[row] && D.undominated[row]) chips.push("undominated");
  if (D.every_seed && D.every_seed[row]) chips.push("in every seed");
  if (D.columns.delta && is(value("delta", row))) chips.push(`Δm ${value("delta", row) > 0 ? "+" : ""}${number(Number(value("delta", row).toPrecision(3)))} %`);
  if (is(value("seconds", row))) chips.push(`${number(Number(value("seconds", row).toPrecision(3)))} s`);
  panel.replaceChildren(
    element("h3", {}, sign, title(row)),
    element("ul", { class: "chips" }, ...chips.map((chip) => element("li", {}, chip))),
  );
  if (D.reason[row]) panel.append(element("p", {}, D.reason[row]));

  const searched = Object.entries(D.parameters).filter(([, values]) => values[row] !== null);
  panel.append(element("h4", {}, "Parameters"));
  panel.append(searched.length ? smallTable(["searched", "value"], searched.map(([name, values]) => [name, number(values[row])]))
    : element("p", { class: "muted small" }, "Nothing was searched."));
  if (D.state[row] === "COMPLETE") {
    const rows = [];
    for (const axis of TESTS) {
      const validation = (axis.id[0] === "t" ? "v" : "w") + axis.id.slice(1);
      rows.push([
        axis.label.replace(/^test /, ""),
        measured(validation, row),
        measured(axis.id, row),
        ...(Object.keys(D.base).length ? [number(D.base[axis.id])] : []),
      ]);
    }
    panel.append(element("h4", {}, "Objectives and losses"));
    panel.append(smallTable(["", "validation", "test", ...(Object.keys(D.base).length ? ["single task"] : [])], rows));
    if (D.spreads) panel.append(element("p", { class: "muted small" }, `Means ± standard deviations over ${D.n_repeats} seeds.`));
  }
  if (D.state[row] === "COMPLETE") showTrace(row);
  showRepeat(row);
  training.hidden = !training.childElementCount;
  repeat.hidden = !repeat.childElementCount;
}

function column(title) {
  const made = element("div", { class: "part" }, element("h4", {}, title));
  training.append(made);
  return made;
}

function showTrace(row) {
  const trace = D.traces[`${D.studies[D.study[row]].id} ${D.number[row]}`];
  training.append(element("h3", {}, `While ${title(row)} was trained`));
  const say = (where, text) => where.append(element("p", { class: "muted small" }, text));
  if (!trace) {
    say(training, "No trace of this trial's training was kept: by default only the points of the fronts keep theirs.");
    return;
  }
  if (trace.thinned) say(training, `Of ${trace.thinned} epochs ${trace.epochs.length} are shown.`);
  const pairs = [];
  for (let i = 1; i < D.tasks.length; i++) for (let j = 0; j < i; j++) pairs.push([i, j]);
  const some = (list) => (list || []).some((each) => each && each.some(is));
  if (some(trace.cosines) && pairs.length) showCosines(trace, pairs);
  else {
    say(column("Conflict between tasks"), D.tasks.length < 2 ? "There is one task only."
      : "No cosines between task gradients: this trial's steps never form the Gramian (its aggregator needs the losses only, or its engine estimates what it needs).");
  }
  const weights = column("Weights of the tasks");
  if (some(trace.task_weights)) lines(weights, "weights", trace.epochs, trace.task_weights, "weight");
  else say(weights, "The trace holds no task weights.");
  if (some(trace.train_losses)) lines(column("Training losses"), "losses", trace.epochs, trace.train_losses, "loss");
}

const LINES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const SYMBOLS = ["circle", "triangle-up", "square", "diamond", "cross", "x", "star"];
const PALETTE = { light: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"] };
PALETTE.dark = PALETTE.light.map((c) => ({ "#0072B2": "#56B4E9", "#56B4E9": "#0072B2", "#000000": "#FFFFFF" })[c] || c);

function plotIn(where, id, text) {
  const made = element("div", { id, class: "small-plot", role: "group", "aria-label": text });
  where.append(made);
  return made;
}

function lines(where, id, epochs, rows, what) {
  const palette = PALETTE[darkness.matches ? "dark" : "light"];
  const every = Math.max(1, Math.round(epochs.length / 6));
  const traces = D.tasks.map((name, k) => ({
    x: epochs, y: rows.map((each) => each && each[k]), name: label(short(name, 22)), mode: "lines+markers",
    hovertemplate: `${label(name)}<br>epoch %{x}: %{y:.3g}<extra></extra>`,
    line: { color: palette[k % palette.length], dash: LINES[Math.floor(k / 2) % LINES.length], width: 1.6 },
    marker: { symbol: SYMBOLS[k % SYMBOLS.length], size: 7, maxdisplayed: 0, opacity: epochs.map((_, e) => (e === 0 || (e + k) % every === 0 ? 1 : 0)) },
  }));
  Plotly.newPlot(plotIn(where, id, `${what} of each task over the epochs`), traces, layout({
    showlegend: true, legend: { orientation: "h", y: -0.25, font: { size: 12 } },
    margin: { l: 45, r: 8, t: 5, b: 35 },
    xaxis: { title: { text: "epoch", standoff: 5 } }, yaxis: { title: { text: what }, rangemode: "tozero" },
  }), { ...CONFIG, displayModeBar: false });
}

function showCosines(trace, pairs) {
  const K = D.tasks.length;
  const shown = trace.epochs.map((_, e) => e).filter((e) => trace.cosines[e]);
  const output = element("output", {});
  const slider = element("input", { type: "range", min: 0, max: shown.length - 1, step: 1, "aria-label": "Epoch", id: "epoch" });
  slider.value = shown.length - 1;
  const now = column("Conflict: cosines of task gradients");
  now.append(element("label", { class: "slider" }, "Epoch", slider, output));
  const heat = plotIn(now, "heat", "Cosines between the task gradients, one row and one column a task");
  const mean = pairs.map((_, p) => {
    const values = shown.map((e) => trace.cosines[e][p]).filter(is);
    return values.length ? values.reduce((a, b) => a + b) / values.length : Infinity;
  });
  let pair = mean.indexOf(Math.min(...mean));
  const names = D.tasks.map((name) => label(short(name, 12)));
  const same = new Set(names).size < K;
  const ticks = same ? names.map((name, k) => `${k + 1} ${name}`) : names;
  const scale = [[0, "#D55E00"], [0.5, variable("--none")], [1, darkness.matches ? "#56B4E9" : "#0072B2"]];

  function drawHeat() {
    const e = shown[Number(slider.value)];
    output.textContent = trace.epochs[e];
    slider.setAttribute("aria-valuetext", `epoch ${trace.epochs[e]}`);
    const z = D.tasks.map((_, i) => D.tasks.map((__, j) => (i === j ? null : trace.cosines[e][pairs.findIndex(([a, b]) => a === Math.max(i, j) && b === Math.min(i, j))])));
    Plotly.react(heat, [{
      type: "heatmap", z, x: ticks, y: ticks, zmin: -1, zmax: 1, colorscale: scale, xgap: 2, ygap: 2,
      texttemplate: K > 8 ? "" : K > 5 ? "%{z:.1f}" : "%{z:.2f}", textfont: { size: 12, color: variable("--ink") }, hoverongaps: false,
      hovertemplate: "%{y}, %{x}: %{z:.3f}<extra></extra>",
      colorbar: { thickness: 10, outlinewidth: 0, tickvals: [-1, 0, 1], ticktext: ["−1 against", "0", "1 along"], tickfont: { size: 11 } },
    }], layout({
      margin: { l: 40, r: 5, t: 5, b: 35 },
      xaxis: { showgrid: false, tickfont: { size: 11 } }, yaxis: { showgrid: false, autorange: "reversed", tickfont: { size: 11 } },
      dragmode: false,
    }), { ...CONFIG, displayModeBar: false });
  }

  const picker = element("select", { id: "pair", "aria-label": "Pair of tasks" }, ...pairs.map(([i, j], p) => element("option", { value: p }, `${D.tasks[j]} and ${D.tasks[i]}`)));
  picker.value = pair;
  slider.addEventListener("input", drawHeat);
  drawHeat();
  heat.on("plotly_click", (event) => {
    const [j, i] = event.points[0].pointIndex || event.points[0].pointNumber;
    if (i !== j) picker.value = pair = pairs.findIndex(([a, b]) => a === Math.max(i, j) && b === Math.min(i, j));
    drawPairs();
  });
  const then = column("A pair over the epochs");
  then.append(element("label", { class: "slider" }, "Pair", picker));
  const over = plotIn(then, "pairs", "Cosine of a pair of tasks over the epochs, all other pairs in grey");

  function drawPairs() {
    const line = (p, strong) => ({
      x: trace.epochs, y: trace.epochs.map((_, e) => trace.cosines[e] && trace.cosines[e][p]), mode: "lines",
      hovertemplate: `${label(D.tasks[pairs[p][1]])} and ${label(D.tasks[pairs[p][0]])}<br>epoch %{x}: %{y:.3f}<extra></extra>`,
      line: { color: strong ? variable("--accent") : variable("--muted"), width: strong ? 3 : 1 }, opacity: strong ? 1 : 0.35,
    });
    const order = pairs.map((_, p) => p).filter((p) => p !== pair);
    Plotly.react(over, [...order.map((p) => line(p, false)), line(pair, true)], layout({
      margin: { l: 45, r: 8, t: 8, b: 38 },
      xaxis: { title: { text: "epoch", standoff: 5 } }, yaxis: { title: { text: "cosine" }, range: [-1.05, 1.05] },
    }), { ...CONFIG, displayModeBar: false });
  }
  picker.addEventListener("change", () => { pair = Number(picker.value); drawPairs(); });
  drawPairs();
}

function repeatFile(row) {
  const study = D.studies[D.study[row]].id;
  const own = D.repeat && D.repeat.own[`${study} ${D.number[row]}`];
  if (!own) return null;
  const name = `${D.name.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "") || "study"}-${study}-${D.number[row]}`;
  const fixed = D.repeat.fixed[study];
  const parts = [fixed[0], own[0], fixed[1], own[1]].filter(Boolean);
  const text = `[study]\nname = "${name}"\n${D.repeat.study}\n[estimator]\n${parts.join("\n")}\n${D.repeat.tail}`;
  return { text, name: `${name}.toml`, command: D.repeat.command.replace("{file}", `${name}.toml`) };
}

function showRepeat(row) {
  const file = repeatFile(row);
  if (!file) return;
  const add = (what, text, which) => {
    const copy = element("button", { type: "button", class: "copy", "data-copies": which }, "Copy");
    copy.addEventListener("click", () => copied(copy, text));
    repeat.append(element("p", { class: "small" }, what, " ", copy), element("pre", { tabindex: "0" }, text));
  };
  repeat.append(element("h3", {}, `Train ${title(row)} again`));
  add(`Save the study file as ${file.name}, then run`, file.command, "command");
  if (D.repeat.table) repeat.append(element("p", { class: "muted small" }, `TABLE is your copy of ${D.repeat.table}.`));
  add(file.name, file.text, "file");
}

async function copied(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // a page opened from a file may not be trusted with the clipboard
    const area = element("textarea", { readonly: "" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}
