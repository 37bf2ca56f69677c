// The page: sections and figures from the report's JSON. All words come in as text, never as HTML.

const report = JSON.parse(document.getElementById("report").textContent);
const redraws = [];
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function add(parent, tag, text, attributes) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

function room(element) {
  return Math.max(240, element.closest("figure").clientWidth - 34);
}

function show(value) {
  return Array.isArray(value) ? value.map(format).join(" to ") : format(value);
}

function addFacts(list, facts) {
  list.replaceChildren();
  for (const [name, value] of Object.entries(facts)) {
    add(list, "dt", name);
    add(list, "dd", show(value));
  }
}

function addTable(parent, columns, rows) {
  const table = add(add(parent, "div", undefined, { class: "scroll", tabindex: 0 }), "table");
  const head = add(add(table, "thead"), "tr");
  columns.forEach((column) => add(head, "th", column, { scope: "col" }));
  const body = add(table, "tbody");
  for (const row of rows) {
    const line = add(body, "tr");
    row.forEach((value, i) => add(line, i ? "td" : "th", show(value), i ? {} : { scope: "row" }));
  }
  return table;
}

// The numbers behind a picture, closed at first. rows: a function, called when it is opened or changes.
function addNumbers(figure, columns, rows) {
  const details = add(figure, "details");
  add(details, "summary", "Numbers");
  const body = add(details, "div");
  const fill = () => {
    body.replaceChildren();
    if (details.open) addTable(body, columns, rows());
  };
  details.addEventListener("toggle", fill);
  return fill;
}

function addSelect(parent, label, names, change) {
  const box = add(parent, "label", label + " ");
  const select = add(box, "select");
  names.forEach((name) => add(select, "option", name));
  select.addEventListener("change", () => change(select.value));
  return select;
}

// A map of cells that mouse and arrow keys walk over. spec() and bytes() may change between draws.
function addMap(parent, label, spec, bytes, moved) {
  const scroll = add(parent, "div", undefined, { class: "scroll" });
  const canvas = add(scroll, "canvas", undefined, { tabindex: 0, role: "img", "aria-label": label });
  const readout = add(parent, "output");
  const at = { row: 0, column: 0 };
  let place;
  const draw = () => {
    place = drawHeat(canvas, spec(), bytes(), room(canvas));
    Object.assign(canvas.dataset, place);
    if (spec().y_ticks.length && spec().x_ticks.length) drawCursor(canvas, place, at.row, at.column);
    readout.textContent = moved(at.row, at.column);
  };
  const move = (row, column) => {
    at.row = Math.max(0, Math.min(spec().y_ticks.length - 1, row));
    at.column = Math.max(0, Math.min(spec().x_ticks.length - 1, column));
    draw();
  };
  const pointed = (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top - place.top) / place.cell);
    const column = Math.floor((event.clientX - box.left - place.left) / place.cell);
    const { y_ticks: rows, x_ticks: columns } = spec();
    if (row >= 0 && column >= 0 && row < rows.length && column < columns.length) move(row, column);
  };
  canvas.addEventListener("click", pointed);
  canvas.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step) return;
    event.preventDefault();
    move(at.row + step[0], at.column + step[1]);
  });
  return { draw, move, at, canvas, hover: () => canvas.addEventListener("mousemove", pointed) };
}

function addLegend(parent, range) {
  const box = add(parent, "div", undefined, { class: "legend" });
  const low = add(box, "span"), canvas = add(box, "canvas"), high = add(box, "span");
  return () => {
    const { low: from, high: to, diverging } = range();
    low.textContent = format(from);
    high.textContent = format(to);
    const context = start(canvas, 128, 10);
    palette(diverging).forEach((color, byte) => {
      context.fillStyle = rgb(color);
      context.fillRect(byte / 2, 0, 1, 10);
    });
  };
}

function cells(values, low, high) {
  return Uint8Array.from(values.flat(), (value) => toByte(value ?? 0, low, high));
}

function heatMap(figure, spec) {
  const name = (i, j) => `${spec.y_label} ${spec.y_ticks[i]}, ${spec.x_label} ${spec.x_ticks[j]}`;
  const bytes = cells(spec.values, spec.low, spec.high);
  const map = addMap(figure, spec.title, () => spec, () => bytes, (i, j) => {
    return bytes.length ? `${name(i, j)}: ${format(spec.values[i][j])}` : "No tokens.";
  });
  map.hover();
  if (bytes.length) Object.assign(map.at, largestPlace(spec.values.flat(), spec.x_ticks.length));
  const legend = addLegend(figure, () => spec);
  if (bytes.length <= 1024) {
    const rows = () => spec.values.map((row, i) => [spec.y_ticks[i], ...row]);
    addNumbers(figure, [spec.y_label, ...spec.x_ticks], rows);
  }
  redraws.push(() => { map.draw(); legend(); });
}

function bars(figure, spec) {
  const controls = add(figure, "div", undefined, { class: "controls" });
  const names = Object.keys(spec.series);
  let chosen = names[0];
  const update = () => {
    const label = chosen === names[0] ? `${spec.x_label}: ${chosen}` : chosen;
    drawBars(canvas, { ...spec, shown_label: label }, spec.series[chosen], room(canvas));
    addFacts(facts, spec.facts[chosen] || {});
    numbers();
  };
  const select = addSelect(controls, "Show", names, (name) => { chosen = name; update(); });
  controls.hidden = names.length < 2;
  select.setAttribute("aria-label", `Series of ${spec.title}`);
  const scroll = add(figure, "div", undefined, { class: "scroll", tabindex: 0 });
  const canvas = add(scroll, "canvas", undefined, { role: "img", "aria-label": spec.title });
  const facts = add(figure, "dl");
  const numbers = addNumbers(figure, [spec.y_label, ...names], () =>
    spec.labels.map((label, i) => [label, ...names.map((name) => spec.series[name][i])]));
  redraws.push(update);
}

function lines(figure, spec) {
  const scroll = add(figure, "div", undefined, { class: "scroll", tabindex: 0 });
  const canvas = add(scroll, "canvas", undefined, { role: "img", "aria-label": spec.title });
  const names = Object.keys(spec.series), key = add(figure, "ul", undefined, { class: "key" });
  const rows = () => spec.x.map((x, i) => [x, ...names.map((name) => spec.series[name][i])]);
  addNumbers(figure, [spec.x_label, ...names], rows);
  redraws.push(() => {
    drawLines(canvas, spec, room(canvas));
    key.replaceChildren();
    names.forEach((name, k) => {
      const item = add(key, "li"), all = colors("series");
      add(item, "span").style.background = rgb(all[k % all.length]);
      item.append(name);
    });
  });
}

async function inflate(base64) {
  const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The maps of one figure: bytes of layer after layer, head after head.
class Maps {
  constructor(bytes, heads, tokens) {
    Object.assign(this, { bytes, heads, n: tokens.length });
  }

  of(layer, head) {
    const start = (layer * this.heads + head) * this.n ** 2;
    return this.bytes.subarray(start, start + this.n ** 2);
  }
}

function largestPlace(numbers, columns) {
  const best = numbers.reduce((most, value, i) => (value > numbers[most] ? i : most), 0);
  return { row: Math.floor(best / columns), column: best % columns };
}

function numbered(count) {
  return Array.from({ length: count }, (_, i) => String(i));
}

// The range of the colors of a measure: shares reach to 1, differences lie on both sides of 0.
function measureRange(name, rows) {
  const known = rows.flat().filter((value) => value !== null);
  const diverging = known.some((value) => value < 0);
  const isShare = name.includes("weight") || name.includes("ln n");
  const most = isShare ? 1 : Math.max(1e-12, ...known.map(Math.abs));
  return { low: diverging ? -most : 0, high: most, diverging };
}

async function heads(figure, spec) {
  const names = Object.keys(spec.measures);
  const rows = () => spec.measures[chosen];
  const range = () => measureRange(chosen, rows());
  let chosen = names[0];
  const layers = numbered(rows().length), count = numbered(rows()[0].length);
  const maps = new Maps(await inflate(spec.maps), count.length, spec.tokens);
  const controls = add(figure, "div", undefined, { class: "controls" });
  const panes = add(figure, "div", undefined, { class: "panes" });
  const left = add(panes, "div"), right = add(panes, "div");
  const grid = addMap(left, `${spec.title}: layers and heads`,
    () => ({ x_label: "head", y_label: "layer", x_ticks: count, y_ticks: layers, ...range() }),
    () => cells(rows(), range().low, range().high),
    (layer, head) => {
      map.draw();
      return `Head (${layer}, ${head}): ${chosen} ${format(rows()[layer][head])}`;
    });
  const legend = addLegend(left, range);
  const map = addHeadMap(right, spec, maps, grid.at);
  const numbers = addNumbers(figure, ["layer", ...count], () => rows().map((row, i) => [String(i), ...row]));
  const choose = (name) => { chosen = name; grid.draw(); legend(); numbers(); };
  addSelect(controls, "Color heads by", names, choose).setAttribute("aria-label", `Measure of ${spec.title}`);
  add(controls, "span", "Arrow keys choose a head, or a cell of its map.");
  Object.assign(grid.at, largestPlace(spec.measures.importance.flat(), count.length));
  Object.assign(map.at, largestPlace(maps.of(grid.at.row, grid.at.column), spec.tokens.length));
  redraws.push(() => { grid.draw(); legend(); });
}

// The map of the head that stands at `head` in the grid.
function addHeadMap(parent, spec, maps, head) {
  const title = add(parent, "h3");
  const map = addMap(parent, `${spec.title}: weights of the chosen head`,
    () => ({ x_label: "key", y_label: "query", x_ticks: spec.tokens, y_ticks: spec.tokens }),
    () => maps.of(head.row, head.column),
    (i, j) => {
      title.textContent = `Weights of head (${head.row}, ${head.column})`;
      const [query, key, weight] = spec.strongest[head.row][head.column];
      const here = (maps.of(head.row, head.column)[i * maps.n + j] / 255).toFixed(2);
      const cell = `${spec.tokens[i]} → ${spec.tokens[j]}, about ${here}`;
      return `Largest: ${query} → ${key}, ${format(weight)}. Here: ${cell}.`;
    });
  map.hover();
  return map;
}

async function build() {
  document.querySelector("h1").textContent = report.title;
  addFacts(document.getElementById("facts"), report.facts);
  const nav = document.querySelector("nav"), main = document.querySelector("main");
  const table = (figure, spec) => addTable(figure, spec.columns, spec.rows);
  const kinds = { heat_map: heatMap, heads, bars, lines, table };
  for (const [i, section] of report.sections.entries()) {
    const box = add(main, "section", undefined, { id: `section-${i}` });
    add(add(nav, "span"), "a", section.title, { href: `#section-${i}` });
    add(box, "h2", section.title);
    section.paragraphs.forEach((text) => add(box, "p", text));
    const figures = add(box, "div", undefined, { class: "figures" });
    for (const spec of section.figures) {
      const wide = ["heads", "table"].includes(spec.kind);
      const figure = add(figures, "figure", undefined, wide ? { class: "wide" } : {});
      add(figure, "h3", spec.title);
      await kinds[spec.kind](figure, spec);
      if (spec.note) add(figure, "figcaption", spec.note);
    }
  }
  redraw();
  document.documentElement.dataset.ready = "yes";
}

function redraw() {
  redraws.forEach((draw) => draw());
}

const dark = matchMedia("(prefers-color-scheme: dark)");

function setTheme(isDark) {
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  redraw();
}

document.getElementById("theme").addEventListener("click", () => {
  setTheme(document.documentElement.dataset.theme !== "dark");
});
dark.addEventListener("change", () => setTheme(dark.matches));
window.addEventListener("resize", redraw);
setTheme(dark.matches);
build();
