// The plot of a series, coloured by its explanation.

import { fillMissing } from "./csv.js";
import { element, model, state } from "./model.js";
import { grouped, number, printable, svg } from "./text.js";

const MAX_VARIABLES = 12; // variables drawn of a multivariate series
const SHADES = 20; // colours of a line, for each sign
const CHARACTER_WIDTH = 6.7; // pixels, approximately
const PANELS = [[1, [240, 5]], [4, [80, 4]], [MAX_VARIABLES, [50, 3]]]; // up to so many variables: height, ticks
const GAP = 26; // pixels between panels

// The value at both ends of the colour scale: the 98th percentile, so that extreme steps do not make others pale.
export function limitOf(explanation) {
  if (explanation === null) return 1;
  const sizes = Float64Array.from(explanation, Math.abs).sort();
  return sizes[Math.floor(0.98 * (sizes.length - 1))] || sizes.at(-1) || 1;
}

export function draw() {
  const variables = state.drawing.values.slice(0, MAX_VARIABLES);
  const length = model.length_policy === "pad" ? model.length : variables[0].length;
  const [height, maxTicks] = PANELS.find(([count]) => variables.length <= count)[1];
  const panels = variables.map((variable) => {
    const filled = fillMissing(variable, length);
    const [low, high] = rangeOf(filled);
    return { variable, filled, low, high, marks: ticks(low, high, maxTicks) };
  });
  state.drawing.width = element("plot").clientWidth;
  const width = Math.max(240, state.drawing.width);
  const longest = Math.max(...panels.flatMap(({ marks }) => marks.map((mark) => number(mark).length)));
  const [left, right] = [10 + CHARACTER_WIDTH * longest, width - 10];
  const x = (step) => left + 4 + ((right - left - 8) * step) / Math.max(1, length - 1);
  const content = [];
  let bottom = panels.length > 1 ? 0 : 8 - GAP;
  panels.forEach((panel, k) => {
    if (panels.length > 1) content.push(svg("text", { x: left, y: bottom + GAP - 6 }, variableName(k)));
    bottom += GAP + height;
    content.push(...drawPanel(panel, x, left, right, bottom, height));
  });
  for (const mark of ticks(0, length - 1, Math.min(8, width / 70), true)) {
    content.push(svg("text", { x: x(mark), y: bottom + 18, "text-anchor": "middle" }, number(mark)));
  }
  content.push(svg("text", { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, "time step"));
  const label = `series of ${grouped(variables[0].length)} time steps`;
  const size = { viewBox: `0 0 ${width} ${bottom + 42}`, height: bottom + 42 };
  const picture = svg("svg", { role: "img", "aria-label": label, ...size }, ...content);
  // A thinner line, or a long series becomes a block.
  picture.style.strokeWidth = Math.min(2.5, Math.max(1.2, (1.5 * (right - left)) / length));
  element("plot").replaceChildren(picture);
  showNotes(panels, length);
}

function drawPanel({ variable, filled, low, high, marks }, x, left, right, bottom, height) {
  const y = (value) => bottom - 4 - ((height - 8) * (value - low)) / (high - low);
  const grid = marks.flatMap((mark) => [
    svg("line", { class: "grid", x1: left, x2: right, y1: y(mark), y2: y(mark) }),
    svg("text", { x: left - 6, y: y(mark) + 4, "text-anchor": "end" }, number(mark)),
  ]);
  // The explanation has the model's time steps; in a series that the model resamples they lie between its own.
  const scale = filled.length > 1 ? (model.length - 1) / (filled.length - 1) : 0;
  const { explanation, limit } = state.drawing;
  const adds = explanation && Float64Array.from(filled, (_, step) => interpolate(explanation, step * scale));
  return [...grid, ...drawLine(filled, adds, variable, limit, x, y, right - left)];
}

function showNotes(panels, length) {
  const notes = [];
  if (panels.length < model.variables) {
    notes.push(`Only the first ${panels.length} of ${model.variables} variables are drawn.`);
  }
  if (panels.some(({ variable }) => variable.length < length || variable.some(Number.isNaN))) {
    notes.push("Thin lines: missing values, as the model fills them in.");
  }
  element("drawn").textContent = notes.join(" ");
}

function variableName(k) {
  const column = model.columns?.[(k * model.columns.length) / model.variables] ?? "";
  return printable(column.match(/^x_(.+)_[0-9]+$/i)?.[1] ?? `variable ${k + 1}`);
}

// The line of one variable: a path for each run of equal colour, thin where values are filled in.
function drawLine(filled, adds, variable, limit, x, y, width) {
  if (filled.length === 1) {
    const dot = svg("circle", { cx: x(0), cy: y(filled[0]), r: 4 });
    if (adds) dot.style.fill = colour(shadeOf(adds[0], limit));
    return [dot];
  }
  return runsOf(filled, adds, variable, limit, x, y, width).map(({ shade, isFilled, path }) => {
    const line = svg("path", { d: path, class: isFilled ? "filled" : "" });
    if (shade !== null) line.style.stroke = colour(shade);
    return line;
  });
}

function runsOf(filled, adds, variable, limit, x, y, width) {
  const isKnown = (step) => step < variable.length && !Number.isNaN(variable[step]);
  const steps = thinOut(filled, width);
  const parts = Math.max(1, Math.floor(width / (2 * filled.length))); // of a segment, so that colours change smoothly
  const runs = [];
  for (let k = 1; k < steps.length; k++) {
    const [a, b] = [steps[k - 1], steps[k]];
    const isFilled = !(isKnown(a) && isKnown(b));
    const between = (values, share) => values[a] + (values[b] - values[a]) * share;
    const place = (share) => `${x(a + (b - a) * share).toFixed(1)} ${y(between(filled, share)).toFixed(1)}`;
    for (let part = 0; part < parts; part++) {
      const [from, to] = [part / parts, (part + 1) / parts];
      const shade = adds ? shadeOf(between(adds, (from + to) / 2), limit) : null;
      const last = runs.at(-1);
      if (last && last.shade === shade && last.isFilled === isFilled) last.path += `L${place(to)}`;
      else runs.push({ shade, isFilled, path: `M${place(from)}L${place(to)}` });
    }
  }
  return runs;
}

// All steps; for a long series, only the steps of the minimum and maximum of each stretch.
function thinOut(values, points) {
  if (values.length <= points) return [...values.keys()];
  const kept = new Set([0]);
  const stretches = Math.floor(points / 2);
  for (let stretch = 0; stretch < stretches; stretch++) {
    const start = Math.floor((values.length * stretch) / stretches);
    const end = Math.floor((values.length * (stretch + 1)) / stretches);
    let [low, high] = [start, start];
    for (let k = start; k < end; k++) {
      if (values[k] < values[low]) low = k;
      if (values[k] > values[high]) high = k;
    }
    kept.add(Math.min(low, high)).add(Math.max(low, high));
  }
  return [...kept.add(values.length - 1)];
}

function shadeOf(value, limit) {
  return Math.round(SHADES * Math.max(-1, Math.min(1, value / limit)));
}

function colour(shade) {
  const percent = (200 * Math.abs(shade)) / SHADES;
  const side = shade < 0 ? "against" : "for";
  return percent <= 100
    ? `color-mix(in srgb, var(--${side}-some) ${percent}%, var(--neutral))`
    : `color-mix(in srgb, var(--${side}) ${percent - 100}%, var(--${side}-some))`;
}

function interpolate(values, place) {
  const left = Math.min(values.length - 1, Math.floor(place));
  const right = Math.min(values.length - 1, left + 1);
  return values[left] + (values[right] - values[left]) * (place - left);
}

function rangeOf(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const margin = low < high ? 0 : Math.abs(low) / 10 || 1;
  return [low - margin, high + margin];
}

function ticks(low, high, most, integer = false) {
  const size = 10 ** Math.floor(Math.log10((high - low) / most || 1));
  let step = [1, 2, 5, 10].find((factor) => (high - low) / (factor * size) <= most) * size;
  if (integer) step = Math.max(1, step);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}
