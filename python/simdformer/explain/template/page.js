// The page: sections and figures from the report's JSON. All words come in as text, never as HTML.

const report = JSON.parse(document.getElementById("report").textContent);
const redraws = [];

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
    if (row >= 0 && column >= 0 && row < spec().y_ticks.length && column < spec().x_ticks.length) move(row, column);
  };
  canvas.addEventListener("click", pointed);
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
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
    palette(diverging).forEach((colour, byte) => {
      context.fillStyle = rgb(colour);
      context.fillRect(byte / 2, 0, 1, 10);
    });
  };
}

function cells(values, low, high) {
  return Uint8Array.from(values.flat(), (value) => (value === null ? toByte(0, low, high) : toByte(value, low, high)));
}

function heatMap(figure, spec) {
  const name = (i, j) => `${spec.y_label} ${spec.y_ticks[i]}, ${spec.x_label} ${spec.x_ticks[j]}`;
  const bytes = cells(spec.values, spec.low, spec.high);
  const map = addMap(figure, spec.title, () => spec, () => bytes, (i, j) => {
    return bytes.length ? `${name(i, j)}: ${format(spec.values[i][j])}` : "No tokens.";
  });
  map.hover();
  const largest = spec.values.flat().reduce((most, value, i, all) => (value > all[most] ? i : most), 0);
  if (bytes.length) Object.assign(map.at, { row: Math.floor(largest / spec.x_ticks.length), column: largest % spec.x_ticks.length });
  const legend = addLegend(figure, () => spec);
  if (bytes.length <= 1024) {
    addNumbers(figure, [spec.y_label, ...spec.x_ticks], () => spec.values.map((row, i) => [spec.y_ticks[i], ...row]));
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
  addNumbers(figure, [spec.x_label, ...names], () => spec.x.map((x, i) => [x, ...names.map((name) => spec.series[name][i])]));
  redraws.push(() => {
    drawLines(canvas, spec, room(canvas));
    key.replaceChildren();
    names.forEach((name, k) => {
      const item = add(key, "li"), all = colours("series");
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

async function heads(figure, spec) {
  const n = spec.tokens.length, names = Object.keys(spec.measures);
  const layers = spec.measures[names[0]].length, count = spec.measures[names[0]][0].length;
  const controls = add(figure, "div", undefined, { class: "controls" });
  const panes = add(figure, "div", undefined, { class: "panes" });
  const all = await inflate(spec.maps);
  let measure = names[0];
  const range = () => {
    const known = spec.measures[measure].flat().filter((value) => value !== null);
    const diverging = known.some((value) => value < 0), most = Math.max(1e-12, ...known.map(Math.abs));
    return { low: diverging ? -most : 0, high: measure.includes("weight") || measure.includes("ln n") ? 1 : most, diverging };
  };
  const number = (k) => Array.from({ length: k }, (_, i) => String(i));
  const grid = addMap(add(panes, "div"), `${spec.title}: layers and heads`,
    () => ({ x_label: "head", y_label: "layer", x_ticks: number(count), y_ticks: number(layers), diverging: range().diverging }),
    () => cells(spec.measures[measure], range().low, range().high),
    (layer, head) => { map.draw(); return `Head (${layer}, ${head}): ${measure} ${format(spec.measures[measure][layer][head])}`; });
  const legend = addLegend(grid.canvas.closest(".panes > div"), range);
  const right = add(panes, "div");
  const title = add(right, "h3");
  const map = addMap(right, `${spec.title}: weights of the chosen head`,
    () => ({ x_label: "key", y_label: "query", x_ticks: spec.tokens, y_ticks: spec.tokens }),
    () => all.subarray((grid.at.row * count + grid.at.column) * n * n, (grid.at.row * count + grid.at.column + 1) * n * n),
    (i, j) => {
      const head = grid.at.row * count + grid.at.column, [query, key, weight] = spec.strongest[grid.at.row][grid.at.column];
      title.textContent = `Weights of head (${grid.at.row}, ${grid.at.column})`;
      const here = (all[head * n * n + i * n + j] / 255).toFixed(2);
      return `Largest: ${query} → ${key}, ${format(weight)}. Here: ${spec.tokens[i]} → ${spec.tokens[j]}, about ${here}.`;
    });
  map.hover();
  const numbers = addNumbers(figure, ["layer", ...number(count)], () => spec.measures[measure].map((row, i) => [String(i), ...row]));
  addSelect(controls, "Colour heads by", names, (name) => { measure = name; grid.draw(); legend(); numbers(); })
    .setAttribute("aria-label", `Measure of ${spec.title}`);
  add(controls, "span", "Arrow keys choose a head, or a cell of its map.");
  const importance = spec.measures.importance;
  if (importance) {
    const best = importance.flat().reduce((most, value, i, list) => (value > list[most] ? i : most), 0);
    Object.assign(grid.at, { row: Math.floor(best / count), column: best % count });
    const weights = all.subarray(best * n * n, (best + 1) * n * n), most = weights.indexOf(weights.reduce((a, b) => Math.max(a, b), 0));
    Object.assign(map.at, { row: Math.floor(most / n), column: most % n });
  }
  redraws.push(() => { grid.draw(); legend(); });
}

async function build() {
  document.querySelector("h1").textContent = report.title;
  addFacts(document.getElementById("facts"), report.facts);
  const nav = document.querySelector("nav"), main = document.querySelector("main");
  const kinds = { heat_map: heatMap, heads, bars, lines, table: (figure, spec) => addTable(figure, spec.columns, spec.rows) };
  for (const [i, section] of report.sections.entries()) {
    const box = add(main, "section", undefined, { id: `section-${i}` });
    add(add(nav, "span"), "a", section.title, { href: `#section-${i}` });
    add(box, "h2", section.title);
    section.paragraphs.forEach((text) => add(box, "p", text));
    const figures = add(box, "div", undefined, { class: "figures" });
    for (const spec of section.figures) {
      const figure = add(figures, "figure", undefined, ["heads", "table"].includes(spec.kind) ? { class: "wide" } : {});
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

document.getElementById("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
dark.addEventListener("change", () => setTheme(dark.matches));
window.addEventListener("resize", redraw);
setTheme(dark.matches);
build();
