// Lines of CSV, read as the server reads them.

import { model } from "./model.js";

const MISSING = /^\s*(nan|na|n\/a|null|none)?\s*$/i;
const NUMBER = /^\s*[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$/;

export const isBlank = (line) => /^[ \t\v\f]*$/.test(line);

// Lines of UTF-8 bytes; none if they are not valid UTF-8, which the server reports.
export function split(bytes) {
  try {
    const lines = new TextDecoder("utf-8", { fatal: true }).decode(bytes).split(/\r\n?|\n/);
    return lines.at(-1) === "" ? lines.slice(0, -1) : lines;
  } catch {
    return [];
  }
}

export function cellsOf(line) {
  if (!line.includes('"')) return line.split(",");
  const cells = `,${line}`.matchAll(/,(?:"((?:[^"]|"")*)"|([^,]*))/g);
  return Array.from(cells, ([, quoted, plain]) => plain ?? quoted.replaceAll('""', '"'));
}

// The line without the columns that are not sent.
export function withoutOmitted(input, line) {
  if (!input.omitted.size || isBlank(line)) return line;
  const kept = cellsOf(line).filter((_, k) => !input.omitted.has(k));
  return kept.map((cell) => (/[",]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell)).join(",");
}

// The lines that the server reads as series: the header may be repeated further down.
export function seriesLines(input, lines) {
  return lines.filter((line) => !isBlank(line) && line !== input.header);
}

// Index and name of the columns that look like labels, as in training data, which people often paste by mistake.
export function guessLabelColumns(lines) {
  const first = lines.find((line) => !isBlank(line));
  if (first === undefined) return [];
  const cells = cellsOf(first);
  if (model.columns) return cells.flatMap((cell, k) => (/^\s*y/i.test(cell) ? [[k, cell]] : []));
  const isValue = (cell) => NUMBER.test(cell) || MISSING.test(cell);
  const startsWithText = cells.length > 1 && !isValue(cells[0]) && isValue(cells[1]);
  return startsWithText || cells.length === model.length * model.variables + 1 ? [[0, cells[0]]] : [];
}

// The label in the omitted columns of a row, in the form of `predicted` below.
export function labelOf(input, line) {
  const cells = cellsOf(line);
  if (!model.columns) return cells[0];
  return model.classes.filter((name) => Number(cells[input.places.get(name)]) === 1).join(" + ");
}

// A line of the response; `top` is the index of the highest probability.
export function parsePrediction(line) {
  const cells = cellsOf(line);
  const probabilities = cells.slice(-model.classes.length).map(Number);
  const top = probabilities.reduce((best, value, k) => (value > probabilities[best] ? k : best), 0);
  const isChosen = model.classes.map((name, k) => (model.columns ? cells[k] === "1" : name === cells[0]));
  const predicted = model.columns ? model.classes.filter((_, k) => isChosen[k]).join(" + ") : cells[0];
  return { predicted, probabilities, top, isChosen };
}

// The series of a row: a Float64Array for each variable, NaN where a value is missing.
export function valuesOf(input, line) {
  const cells = cellsOf(line);
  const values = model.columns
    ? model.columns.map((name) => cells[input.places.get(name)])
    : cells.filter((_, k) => !input.omitted.has(k));
  const value = (cell) => (MISSING.test(cell) ? NaN : Number(cell));
  const length = values.length / model.variables;
  const series = Array.from({ length: model.variables }, (_, k) =>
    Float64Array.from(values.slice(k * length, (k + 1) * length), value));
  if (model.length_policy === "error") return series;
  const isMissing = (step) => series.every((variable) => Number.isNaN(variable[step]));
  let end = length;
  while (end > 1 && isMissing(end - 1)) end -= 1;
  return series.map((variable) => variable.subarray(0, end));
}

// Fill missing values as the model does: by linear interpolation, at the ends with the nearest value.
export function fillMissing(values, length) {
  const known = [...values.keys()].filter((k) => !Number.isNaN(values[k]));
  let next = 0;
  return Float64Array.from({ length }, (_, k) => {
    while (next < known.length && known[next] < k) next += 1;
    const right = known[Math.min(next, known.length - 1)];
    const left = known[Math.max(next - 1, 0)];
    if (k <= left || next >= known.length) return values[next >= known.length ? right : left];
    return values[left] + ((values[right] - values[left]) * (k - left)) / (right - left);
  });
}
