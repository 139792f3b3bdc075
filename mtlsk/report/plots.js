"use strict";
// Data, looks, and the two large plots. All names are text: `label` is what Plotly may be given.
const D = JSON.parse(document.getElementById("data").textContent);
const N = D.number.length;
const darkness = window.matchMedia("(prefers-color-scheme: dark)");
const coarse = window.matchMedia("(pointer: coarse)").matches;
const AXIS = Object.fromEntries(D.axes.map((axis) => [axis.id, axis]));
const MANY = 1500; // points beyond which WebGL draws the cloud
const FEW = 300; // front points that the lines over all tests show
const DASHES = { solid: "", dash: "7 4", dot: "2 3", dashdot: "8 3 2 3" };

const colour = (look) => (darkness.matches ? look.dark : look.light);
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// Plotly reads a few tags and entities in its texts: what comes from a study stays text
const label = (text) =>
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const value = (id, row) => D.columns[id][row];
const is = (number) => typeof number === "number";

function short(text, width) {
  const plain = String(text);
  return plain.length > width ? `${plain.slice(0, width - 9)}…${plain.slice(-8)}` : plain;
}

function number(v) {
  if (!is(v)) return v === null || v === undefined ? "–" : String(v);
  if (Number.isInteger(v) && Math.abs(v) < 1e6) return String(v);
  return String(Number(v.toPrecision(4)));
}

function wrapped(text, width = 46) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1).length + word.length > width && lines.at(-1)) lines.push("");
    lines.push(`${lines.pop()}${word.slice(0, 2 * width)} `);
  }
  return lines.map((line) => label(line.trim())).join("<br>");
}

const title = (row) => `${D.studies[D.study[row]].name}, trial ${D.number[row]}`;

function hover(row, ids) {
  const values = ids.map((id) => `${label(short(AXIS[id].label, 40))}: ${number(value(id, row))}`);
  return `<b>${label(title(row))}</b><br>${values.join("<br>")}<br>${wrapped(D.text[row])}`;
}

function layout(more) {
  const axis = {
    gridcolor: variable("--line"), zerolinecolor: variable("--line"), linecolor: variable("--line"),
    automargin: true,
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    font: { color: variable("--ink"), family: "system-ui, sans-serif", size: 13 },
    hoverlabel: {
      bgcolor: variable("--page"), bordercolor: variable("--line"), align: "left",
      font: { color: variable("--ink"), size: 13 },
    },
    margin: { l: 55, r: 15, t: 10, b: 45 }, hovermode: "closest", hoverdistance: 25,
    dragmode: coarse ? false : "zoom", ...more,
    xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
  };
}

const CONFIG = {
  displaylogo: false, responsive: true, displayModeBar: !coarse && "hover",
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"], plotlyServerURL: "",
};

function rowsOf(study, front) {
  const rows = [];
  for (let row = 0; row < N; row++) {
    if (D.study[row] === study && D.state[row] === "COMPLETE" && !!D.front[row] === front) rows.push(row);
  }
  return rows;
}
const CLOUDS = D.studies.map((_, study) => rowsOf(study, false));
const FRONTS = D.studies.map((_, study) => rowsOf(study, true));

// limits that hold the front and the middle half of all trials: a wild one cannot squash them
function frame(id) {
  const of = (lists) => lists.flat().map((row) => value(id, row)).filter(is);
  const every = of([...CLOUDS, ...FRONTS]).sort((a, b) => a - b);
  if (!every.length) return null;
  const front = of(FRONTS);
  const at = (q) => every[Math.round(q * (every.length - 1))];
  let low = at(0.25), high = at(0.75);
  for (const v of front) { low = Math.min(low, v); high = Math.max(high, v); }
  if (is(D.base[id])) { low = Math.min(low, D.base[id]); high = Math.max(high, D.base[id]); }
  const margin = 0.1 * (high - low) || 0.1 * Math.abs(high) || 1;
  return [low - margin, high + margin];
}

function points(rows, x, y) {
  return {
    x: rows.map((row) => value(x, row)), y: rows.map((row) => value(y, row)), customdata: rows,
    text: rows.map((row) => hover(row, [x, y])), hovertemplate: "%{text}<extra></extra>",
  };
}

function axisTitle(id) {
  const axis = AXIS[id];
  const plain = ["seconds", "number"].includes(id);
  return { text: label(short(axis.label, 40)) + (plain ? "" : ` (${axis.better})`), font: { size: 13 } };
}

function steps(study, x, y, limits) {
  const path = D.attained[D.studies[study].id];
  if (!path || x !== "t0" || y !== "t1") return [];
  // the steps run on to the worse edges of the picture
  const worse = (id, k) => (limits[k] || [Infinity, -Infinity])[AXIS[id].maximise ? 0 : 1];
  const look = D.studies[study];
  return [{
    x: [path[0][0], ...path[0], worse(x, 0)], y: [worse(y, 1), ...path[1], path[1].at(-1)],
    mode: "lines", line: { shape: "hv", color: colour(look), dash: look.dash, width: 1.5 },
    hoverinfo: "skip",
  }];
}

function drawScatter(x, y, whole) {
  const limits = [frame(x), frame(y)];
  const traces = [];
  D.studies.forEach((look, study) => {
    if (!CLOUDS[study].length) return;
    traces.push({
      ...points(CLOUDS[study], x, y), mode: "markers", name: `${look.name}, other trials`,
      type: N > MANY ? "scattergl" : "scatter",
      marker: { symbol: look.symbol, size: N > MANY ? 5 : 6, color: colour(look), opacity: 0.3 },
    });
  });
  D.studies.forEach((look, study) => traces.push(...steps(study, x, y, limits)));
  D.studies.forEach((look, study) => {
    if (!FRONTS[study].length) return;
    traces.push({
      ...points(FRONTS[study], x, y), mode: "markers", name: `${look.name}, front`,
      type: FRONTS[study].length > MANY ? "scattergl" : "scatter",
      marker: {
        symbol: look.symbol, size: 11, color: colour(look),
        line: { width: 1.2, color: variable("--card") },
      },
    });
  });
  const range = (k) => (whole || !limits[k] ? { autorange: true } : { range: limits[k] });
  Plotly.react("scatter", traces, layout({
    uirevision: `${x} ${y} ${whole}`,
    xaxis: { title: axisTitle(x), ...range(0) }, yaxis: { title: axisTitle(y), ...range(1) },
  }), CONFIG);
  const beyond = [...CLOUDS, ...FRONTS].flat().filter((row) => [x, y].some((id, k) => {
    const v = value(id, row);
    return !whole && limits[k] && is(v) && (v < limits[k][0] || v > limits[k][1]);
  })).length;
  document.getElementById("outside").textContent =
    beyond ? `${beyond} of ${[...CLOUDS, ...FRONTS].flat().length} complete trials lie outside the picture.` : "";
}

// marks are shapes, which Plotly moves without drawing thousands of points again
function markScatter(x, y, chosen) {
  const base = { width: 1.5, dash: "dashdot", color: colour(D.studies[3]) };
  const shapes = [];
  if (is(D.base[x])) {
    shapes.push({ type: "line", xref: "x", yref: "paper", x0: D.base[x], x1: D.base[x], y0: 0, y1: 1, line: base });
  }
  if (is(D.base[y])) {
    shapes.push({ type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: D.base[y], y1: D.base[y], line: base });
  }
  if (chosen !== null && is(value(x, chosen)) && is(value(y, chosen))) {
    shapes.push({
      type: "circle", name: "chosen", xsizemode: "pixel", ysizemode: "pixel",
      xanchor: value(x, chosen), yanchor: value(y, chosen), x0: -11, x1: 11, y0: -11, y1: 11,
      line: { color: variable("--ink"), width: 2.5 },
    });
  }
  Plotly.relayout("scatter", { shapes });
}

const TESTS = D.axes.filter((axis) => ["test objectives", "test losses"].includes(axis.group));

// evenly over each front where there are more than a picture can hold
const LINED = FRONTS.map((rows) => {
  const most = Math.ceil((FEW * rows.length) / Math.max(FEW, FRONTS.flat().length));
  return rows.filter((_, k) => Math.floor((k * most) / rows.length) !== Math.floor(((k - 1) * most) / rows.length));
});
const scaling = () => {
  const fronts = FRONTS.flat();
  return TESTS.map((axis) => {
    const sign = axis.maximise ? -1 : 1;
    const values = fronts.map((row) => value(axis.id, row)).filter(is).map((v) => sign * v);
    const best = Math.min(...values), worst = Math.max(...values);
    return { best: sign * best, worst: sign * worst, z: (v) => (is(v) ? (sign * v - best) / (worst - best || 1) : null) };
  });
};
const SCALE = scaling();

// every front point as a line over all tests: ordinary lines, so that each can be chosen
function drawParallel() {
  const narrow = document.getElementById("parallel").clientWidth < 500;
  const scale = SCALE;
  const three = (v) => number(Number(v.toPrecision(3)));
  const line = (row) => TESTS.map((axis, k) => scale[k].z(value(axis.id, row)));
  const traces = D.studies.flatMap((look, study) => {
    const rows = LINED[study];
    if (!rows.length) return [];
    const spread = (each) => rows.flatMap((row) => [...each(row), null]);
    return [{
      x: spread(() => TESTS.map((_, k) => k)), y: spread(line), name: `${look.name}, front`,
      customdata: spread((row) => TESTS.map(() => row)), mode: "lines+markers", connectgaps: false,
      text: spread((row) => TESTS.map((axis) => hover(row, [axis.id]))),
      hovertemplate: "%{text}<extra></extra>", opacity: rows.length > 20 ? 0.55 : 0.85,
      line: { color: colour(look), dash: look.dash, width: 1.3 },
      marker: { symbol: look.symbol, size: 7, color: colour(look) },
    }];
  });
  const base = TESTS.map((axis, k) => scale[k].z(D.base[axis.id]));
  if (base.some(is)) {
    const look = D.studies[3];
    traces.push({
      x: TESTS.map((_, k) => k), y: base, mode: "lines+markers", name: look.name,
      text: TESTS.map((axis) => `best ${label(look.name)} net: ${number(D.base[axis.id])}`),
      hovertemplate: "%{text}<extra></extra>",
      line: { color: colour(look), dash: look.dash, width: 2 },
      marker: { symbol: look.symbol, size: 9, color: colour(look) },
    });
  }
  const ticks = TESTS.map((axis, k) => {
    const name = label(short(axis.label.replace(/^test (loss )?/, ""), narrow ? 14 : 18));
    return narrow ? name : `${name}<br>${three(scale[k].best)}<br>${three(scale[k].worst)}`;
  });
  Plotly.react("parallel", traces, layout({
    uirevision: "parallel",
    xaxis: {
      tickvals: TESTS.map((_, k) => k), ticktext: ticks, range: [-0.3, TESTS.length - 0.7],
      zeroline: false, tickangle: narrow ? -60 : TESTS.length > 9 ? -40 : 0, tickfont: { size: 12 },
    },
    yaxis: { title: { text: "scaled (lower is better)", font: { size: 13 } }, zeroline: false },
  }), CONFIG);
}

function markParallel(chosen) {
  const z = TESTS.map((axis, k) => (chosen === null ? null : SCALE[k].z(value(axis.id, chosen))));
  const path = z.map((v, k) => (is(v) ? `${k && is(z[k - 1]) ? "L" : "M"}${k},${v}` : "")).join("");
  const line = { color: variable("--ink"), width: 3 };
  Plotly.relayout("parallel", { shapes: path ? [{ type: "path", name: "chosen", path, line }] : [] });
}
