// Prediction of whole recordings, and a picture of each: its values, and coloured bands of the predicted classes.

import { cellsOf, isBlank, split } from "./csv.js";
import { element, model, state } from "./model.js";
import { hideMessage, InputError, messageOf, post, PREDICTIONS, showMessage } from "./requests.js";
import { grouped, labelElement, make, printable, svg } from "./text.js";

const COLOURS = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2", "#999999"];
const MAX_RECORDINGS = 6; // that are drawn
const [WIDTH, HEIGHT, BAND] = [900, 110, 14]; // pixels

const colourOf = (label) => COLOURS[Math.max(0, model.classes.indexOf(label)) % COLOURS.length];

// Whether the input starts with the names of the columns of recordings.
export async function isRecording(input) {
  if (!model.recording) return false;
  const [first] = split(new Uint8Array(await input.blob.slice(0, 2 ** 16).arrayBuffer()));
  const names = cellsOf(first ?? "").map((name) => name.trim());
  return model.recording.values.some((name) => names.includes(name));
}

export async function predictRecordings(input) {
  state.predicting?.abort();
  const run = (state.predicting = new AbortController());
  hideMessage();
  element("results").hidden = true;
  try {
    if (input.blob.size > model.max_body) throw new InputError(`${input.name} is larger than a request may be.`);
    const { status, text } = await post(input.blob, PREDICTIONS, run.signal);
    run.signal.throwIfAborted();
    if (status !== 200) throw new InputError(text.trim().replace(/^request/, input.name));
    show(split(new Uint8Array(await input.blob.arrayBuffer())), text);
  } catch (error) {
    if (!run.signal.aborted) showMessage(messageOf(error));
  }
}

function show(lines, text) {
  const windows = text.trim().split("\n").slice(1).map(cellsOf)
    .map(([name, start, end, label]) => ({ name, start: timeOf(start), end: timeOf(end), label }));
  const recordings = rowsByRecording(lines);
  const counts = new Map();
  for (const { label } of windows) counts.set(label, (counts.get(label) ?? 0) + 1);
  const legend = [...counts].flatMap(([label, count], k) => {
    const box = make("span", { class: "swatch" });
    box.style.background = colourOf(label);
    return [k ? ", " : "", box, labelElement(label), ` ${grouped(count)}`];
  });
  element("windows").replaceChildren(`${grouped(windows.length)} windows: `, ...legend);
  const drawn = [...recordings].slice(0, MAX_RECORDINGS).map(([name, rows]) => {
    const own = windows.filter((each) => each.name === name);
    return make("figure", {}, make("figcaption", {}, printable(name)), picture(rows, own));
  });
  element("pictures").replaceChildren(...drawn);
  const link = make("a", { download: "predictions.csv" }, "Download all as CSV");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  element("windows").append(" ", link);
  element("recordings").hidden = false;
  element("status").textContent = element("windows").textContent;
}

function timeOf(cell) {
  if (!model.recording.timestamps) return Number(cell);
  return Date.parse(/([zZ]|[-+]\d\d:?\d\d)$/.test(cell) ? cell : `${cell}Z`);
}

const numberOf = (cell) => (cell?.trim() ? Number(cell) : NaN);

// Times and values of the rows of each recording; rows are numbered if they have no time.
function rowsByRecording(lines) {
  const [header, ...rows] = lines.filter((row) => !isBlank(row)).map(cellsOf);
  const places = new Map(header.map((name, k) => [name.trim(), k]));
  const { id, time, values } = model.recording;
  const found = new Map();
  rows.forEach((cells, k) => {
    const name = id === null ? "recording" : cells[places.get(id)];
    if (!found.has(name)) found.set(name, []);
    const numbers = values.map((column) => numberOf(cells[places.get(column)]));
    found.get(name).push({ time: time === null ? k + 2 : timeOf(cells[places.get(time)]), numbers });
  });
  return found;
}

function extentOf(numbers) {
  const extend = ([low, high], value) => [Math.min(low, value), Math.max(high, value)];
  return numbers.reduce(extend, [Infinity, -Infinity]);
}

function picture(rows, windows) {
  const [first, last] = extentOf(rows.map(({ time }) => time));
  const x = (time) => (WIDTH * (time - first)) / (last - first || 1);
  const content = [];
  windows.forEach(({ start, end, label }, k) => {
    const before = windows[k - 1]?.end > start ? (windows[k - 1].start + windows[k - 1].end + start + end) / 4 : start;
    const after = windows[k + 1]?.start < end ? (windows[k + 1].start + windows[k + 1].end + start + end) / 4 : end;
    for (const [y, height, opacity] of [[0, HEIGHT, 0.15], [HEIGHT + 2, BAND, 1]]) {
      const band = svg("rect", { x: x(before), y, width: Math.max(0.5, x(after) - x(before)), height, opacity });
      band.style.fill = colourOf(label);
      content.push(band);
    }
  });
  model.recording.values.forEach((_, k) => content.push(line(rows, k, x)));
  const label = `${grouped(rows.length)} rows, ${grouped(windows.length)} windows`;
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + BAND + 2}`, role: "img", "aria-label": label }, ...content);
}

// A variable, scaled to the height of the picture; of many rows, the lowest and the highest of each pixel.
function line(rows, k, x) {
  const known = rows.map(({ time, numbers }) => [x(time), numbers[k]]).filter(([, value]) => !Number.isNaN(value));
  const [low, high] = extentOf(known.map(([, value]) => value));
  const y = (value) => HEIGHT - 4 - ((HEIGHT - 8) * (value - low)) / (high - low || 1);
  const pixels = new Map();
  for (const [place, value] of known) {
    const pixel = pixels.get(Math.round(place)) ?? [value, value];
    pixels.set(Math.round(place), [Math.min(pixel[0], value), Math.max(pixel[1], value)]);
  }
  const inOrder = [...pixels].sort(([a], [b]) => a - b);
  const points = inOrder.flatMap(([place, pair]) => pair.map((value) => `${place},${y(value).toFixed(1)}`));
  const opacity = 1 - (0.6 * k) / model.recording.values.length;
  return svg("polyline", { points: points.join(" "), class: "recorded", opacity });
}
