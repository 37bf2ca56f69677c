"use strict";
// Drawing: colors, axes, heat maps, bars, lines. Lengths are CSS pixels.

const FONT = "12px system-ui, 'Liberation Sans', sans-serif";
const LONGEST_LABEL = 96;

// A list of colors that the style sheet names, as [r, g, b] each.
function colors(name) {
  const value = getComputedStyle(document.documentElement).getPropertyValue("--" + name);
  return value.trim().split(/\s+/).map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
}

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function rgb(color) {
  return `rgb(${color.join(",")})`;
}

// The color of each byte: straight lines between the ramp's three colors.
function palette(diverging) {
  const [low, middle, high] = colors(diverging ? "diverging" : "ramp");
  return Array.from({ length: 256 }, (_, byte) => {
    const place = byte / 127.5;
    const [from, to, share] = place < 1 ? [low, middle, place] : [middle, high, place - 1];
    return from.map((start, i) => Math.round(start + (to[i] - start) * share));
  });
}

function toByte(value, low, high) {
  return Math.round(255 * Math.min(1, Math.max(0, (value - low) / (high - low || 1))));
}

// Four significant digits; null stands for NaN.
function format(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  if (Math.abs(value) < 1e-4) return value.toExponential(3);
  return value.toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

// The context of a canvas of this size, cleared, with the page's font.
function start(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.ceil(width * scale);
  canvas.height = Math.ceil(height * scale);
  canvas.style.width = width + "px";
  canvas.style.height = height + "px";
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.font = FONT;
  context.fillStyle = css("text");
  context.textBaseline = "middle";
  return context;
}

function shorten(context, text) {
  if (context.measureText(text).width <= LONGEST_LABEL) return text;
  let end = text.length;
  while (end > 1 && context.measureText(text.slice(0, end) + "…").width > LONGEST_LABEL) end--;
  return text.slice(0, end) + "…";
}

function widest(context, labels) {
  return Math.min(LONGEST_LABEL, Math.max(0, ...labels.map((label) => context.measureText(label).width)));
}

function turned(context, x, y, draw) {
  context.save();
  context.translate(x, y);
  context.rotate(-Math.PI / 2);
  draw();
  context.restore();
}

// bytes: Uint8Array of rows x columns. Returns where the cells are: {left, top, cell}.
function drawHeat(canvas, spec, bytes, room) {
  const rows = spec.y_ticks.length, columns = spec.x_ticks.length;
  const probe = canvas.getContext("2d");
  probe.font = FONT;
  const cell = Math.max(2, Math.min(26, Math.floor((room - 40) / (columns + 3))));
  const labeled = cell >= 9;
  const left = 22 + (labeled ? widest(probe, spec.y_ticks) + 6 : 0);
  const upright = spec.x_ticks.every((tick) => probe.measureText(tick).width <= cell - 2);
  const below = labeled ? (upright ? 18 : widest(probe, spec.x_ticks) + 10) : 4;
  const width = left + columns * cell + 12, height = rows * cell + below + 26;
  const context = start(canvas, Math.max(width, 150), height);
  paintCells(context, { left, top: 4, cell, rows, columns }, bytes, palette(spec.diverging));
  if (labeled) drawTicks(context, spec, { left, top: 4, cell, rows, columns, upright });
  context.fillStyle = css("faint");
  context.textAlign = "center";
  context.fillText(spec.x_label, left + Math.max(columns * cell, 40) / 2, height - 10);
  turned(context, 10, 4 + (rows * cell) / 2, () => context.fillText(spec.y_label, 0, 0));
  return { left, top: 4, cell };
}

function paintCells(context, area, bytes, table) {
  const { left, top, cell, rows, columns } = area;
  if (!rows || !columns) return;
  const small = document.createElement("canvas");
  small.width = columns;
  small.height = rows;
  const image = new ImageData(columns, rows);
  const packed = Uint32Array.from(table, ([r, g, b]) => new Uint32Array(Uint8Array.of(r, g, b, 255).buffer)[0]);
  new Uint32Array(image.data.buffer).set(Uint32Array.from(bytes, (byte) => packed[byte]));
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, left, top, columns * cell, rows * cell);
  context.strokeStyle = css("line");
  context.strokeRect(left - 0.5, top - 0.5, columns * cell + 1, rows * cell + 1);
}

function drawTicks(context, spec, area) {
  const { left, top, cell, rows, columns, upright } = area;
  context.fillStyle = css("text");
  context.textAlign = "right";
  spec.y_ticks.forEach((tick, i) => {
    context.fillText(shorten(context, tick), left - 6, top + (i + 0.5) * cell);
  });
  const bottom = top + rows * cell + (upright ? 10 : 5);
  for (let j = 0; j < columns; j++) {
    const x = left + (j + 0.5) * cell, tick = shorten(context, spec.x_ticks[j]);
    context.textAlign = upright ? "center" : "right";
    if (upright) context.fillText(tick, x, bottom);
    else turned(context, x, bottom, () => context.fillText(tick, 0, 0));
  }
}

// A frame around the chosen cell, in two colors so that it shows on any.
function drawCursor(canvas, place, row, column) {
  const context = canvas.getContext("2d");
  const x = place.left + column * place.cell, y = place.top + row * place.cell;
  for (const [color, grow] of [["text", 1], ["page", 0]]) {
    context.strokeStyle = css(color);
    context.strokeRect(x - grow + 0.5, y - grow + 0.5, place.cell + 2 * grow - 1, place.cell + 2 * grow - 1);
  }
}

function drawBars(canvas, spec, values, room) {
  const probe = canvas.getContext("2d");
  probe.font = FONT;
  const cell = 20, left = widest(probe, spec.labels) + 10, numbers = 64;
  const known = values.map((value) => value ?? 0);
  const low = Math.min(0, ...known), high = Math.max(0, ...known), span = high - low || 1;
  const width = Math.max(260, Math.min(room, 640)), bar = width - left - 2 * numbers;
  const context = start(canvas, width, spec.labels.length * cell + 28);
  const zero = left + numbers - (low < 0 ? 0 : numbers - 4) + (-low / span) * bar;
  known.forEach((value, i) => {
    const y = i * cell + cell / 2, length = (value / span) * bar;
    context.fillStyle = rgb(colors("series")[value < 0 ? 1 : 0]);
    context.fillRect(Math.min(zero, zero + length), y - 6, Math.abs(length), 12);
    context.fillStyle = css("text");
    context.textAlign = "right";
    context.fillText(shorten(context, spec.labels[i]), left - 4, y);
    context.textAlign = value < 0 ? "right" : "left";
    context.fillText(format(values[i]), zero + length + (value < 0 ? -5 : 5), y);
  });
  context.fillStyle = css("faint");
  context.fillRect(zero, 0, 1, spec.labels.length * cell);
  context.textAlign = "left";
  context.fillText(spec.shown_label, left, spec.labels.length * cell + 14);
}

// Numbers at which an axis is marked: decades, or some five round steps.
function marks(low, high, log) {
  if (log) {
    const decades = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) decades.push(10 ** e);
    return decades;
  }
  const raw = (high - low || 1) / 5, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((k) => k * unit >= raw) * unit;
  const result = [];
  for (let k = Math.floor(low / step); (k - 1) * step < high; k++) result.push(Number((k * step).toPrecision(12)));
  return result;
}

// given: where to put marks instead, on an axis that ends with the first and the last.
function axis(numbers, log, from, to, given) {
  const usable = numbers.filter((v) => v !== null && (!log || v > 0));
  if (!usable.length) usable.push(1);
  const all = given || marks(Math.min(...usable), Math.max(...usable), log);
  const at = log ? Math.log10 : (v) => v;
  const low = at(all[0]), high = at(all[all.length - 1]);
  const place = (v) => from + ((at(v) - low) / (high - low || 1)) * (to - from);
  return { all, place, usable: (v) => v !== null && (!log || v > 0) };
}

function tickText(value) {
  const size = Math.abs(value);
  return size >= 1e5 || (size !== 0 && size < 1e-3) ? value.toExponential(0) : format(value);
}

function drawLines(canvas, spec, room) {
  const width = Math.max(280, Math.min(room, 640)), height = 300, series = Object.values(spec.series);
  const context = start(canvas, width, height);
  const across = axis(spec.x, spec.log_x, 64, width - 20, spec.x.length <= 10 ? spec.x : undefined);
  const up = axis(series.flat().concat(spec.log_y ? [] : [0]), spec.log_y, height - 46, 10);
  context.strokeStyle = css("line");
  context.textAlign = "right";
  for (const mark of up.all) {
    context.strokeRect(64, up.place(mark), width - 78, 0);
    context.fillText(tickText(mark), 58, up.place(mark));
  }
  context.textAlign = "center";
  for (const mark of across.all) context.fillText(tickText(mark), across.place(mark), height - 34);
  context.fillStyle = css("faint");
  context.fillText(spec.x_label, (64 + width) / 2, height - 12);
  turned(context, 8, (height - 36) / 2, () => context.fillText(spec.y_label, 0, 0));
  series.forEach((values, k) => drawSeries(context, spec.x, values, across, up, k));
}

function drawSeries(context, x, values, across, up, k) {
  const all = colors("series");
  context.strokeStyle = context.fillStyle = rgb(all[k % all.length]);
  context.lineWidth = 2;
  context.beginPath();
  let drawing = false;
  values.forEach((value, i) => {
    if (!up.usable(value)) { drawing = false; return; }
    const point = [across.place(x[i]), up.place(value)];
    if (drawing) context.lineTo(...point);
    else context.moveTo(...point);
    drawing = true;
    if (x.length <= 40) context.fillRect(point[0] - 2.5, point[1] - 2.5, 5, 5);
  });
  context.stroke();
  context.lineWidth = 1;
}
