// The results: summary, table, and the selected series with its plot and probabilities.

import { labelOf, parsePrediction, seriesLines, split, valuesOf } from "./csv.js";
import { element, model, state } from "./model.js";
import { draw, limitOf } from "./plot.js";
import { fetchExplanation, messageOf, showMessage } from "./requests.js";
import { grouped, labelElement, make, number, printable, probability } from "./text.js";

const TABLE_ROWS = 12;
const MAX_IN_ORDER = 12; // classes listed in the model's order; more are sorted by probability

export async function select(index) {
  if (!state.result?.count) return;
  state.selected = Math.max(0, Math.min(state.result.count - 1, Math.trunc(index) || 0));
  element("number").value = state.selected + 1;
  state.showing?.abort();
  const turn = (state.showing = new AbortController());
  try {
    await Promise.all([showTable(), showSeries(state.result, state.selected, turn.signal)]);
  } catch (error) {
    if (!turn.signal.aborted) showMessage(messageOf(error));
  }
}

// Whether the series with this index is in the page of the table that is shown.
export function isInTable(index) {
  return index < (Math.floor(state.selected / TABLE_ROWS) + 1) * TABLE_ROWS;
}

// Lines and predictions of a piece of the input, read again when needed; two pieces are kept in memory.
const cache = new Map();
function load(result, piece) {
  if (!cache.has(piece)) {
    if (cache.size > 1) cache.delete(cache.keys().next().value);
    const both = [result.input.blob.slice(piece.start, piece.end).arrayBuffer(), piece.reply.text()];
    cache.set(piece, Promise.all(both).then(([bytes, text]) =>
      [seriesLines(result.input, split(new Uint8Array(bytes))), text.split("\n")]));
  }
  return cache.get(piece);
}

async function seriesAt(result, index) {
  const piece = result.pieces.find(({ first, count }) => index < first + count);
  const [lines, predictions] = await load(result, piece);
  const line = lines[index - piece.first];
  const label = result.input.omitted.size ? labelOf(result.input, line) : null;
  return { line, label, ...parsePrediction(predictions[index - piece.first]) };
}

export async function showTable() {
  const { result } = state;
  const first = Math.floor(state.selected / TABLE_ROWS) * TABLE_ROWS;
  const last = Math.min(first + TABLE_ROWS, result.count);
  const rows = [];
  for (let index = first; index < last; index++) rows.push(await seriesAt(result, index));
  if (result !== state.result || first !== Math.floor(state.selected / TABLE_ROWS) * TABLE_ROWS) return;
  const hadFocus = element("table").contains(document.activeElement);
  const titles = ["series", "predicted", ...(result.input.omitted.size ? ["label"] : []), "probability"];
  element("columns").replaceChildren(...titles.map((title) => make("th", { scope: "col" }, title)));
  element("caption").textContent = `series ${grouped(first + 1)} to ${grouped(last)}`;
  element("table").replaceChildren(...rows.map((row, k) => tableRow(row, first + k)));
  if (hadFocus) element("table").querySelector("[aria-current] button").focus();
}

function tableRow({ predicted, probabilities, top, label }, index) {
  const isCurrent = index === state.selected;
  const button = make("button", { type: "button", tabindex: isCurrent ? "0" : "-1" }, grouped(index + 1));
  const truth = label === predicted
    ? labelElement(predicted)
    : make("span", { class: "mistake" }, "\u2260 ", labelElement(label ?? ""));
  const cells = [button, labelElement(predicted), ...(label === null ? [] : [truth]), probability(probabilities[top])];
  const row = make("tr", isCurrent ? { "aria-current": "true" } : {}, ...cells.map((cell) => make("td", {}, cell)));
  row.addEventListener("click", () => select(index));
  return row;
}

async function showSeries(result, index, signal) {
  const { line, label, ...prediction } = await seriesAt(result, index);
  const { predicted, probabilities, top } = prediction;
  const explanation = model.explains ? await fetchExplanation(result.input, line, signal) : null;
  if (signal.aborted) return;
  const isMistake = label !== null && label !== predicted;
  element("title").replaceChildren(
    `Series ${grouped(index + 1)}: predicted `, labelElement(predicted),
    `, ${model.columns ? "highest " : ""}probability `, probability(probabilities[top]),
    ...(isMistake ? [make("span", { class: "mistake" }, "; labelled ", labelElement(label))] : []));
  showBars(prediction);
  state.drawing = { values: valuesOf(result.input, line), explanation, limit: limitOf(explanation) };
  draw();
  showLegend(model.classes[top]);
}

function showBars({ probabilities, isChosen }) {
  const order = [...model.classes.keys()];
  if (order.length > MAX_IN_ORDER) order.sort((a, b) => probabilities[b] - probabilities[a]);
  element("bars").replaceChildren(...order.map((k) => {
    const bar = make("div");
    bar.style.width = `${100 * probabilities[k]}%`;
    const track = make("div", { class: "track", "aria-hidden": "true" }, bar);
    const cells = [labelElement(model.classes[k]), track, make("span", {}, probability(probabilities[k]))];
    return make("li", { class: isChosen[k] ? "chosen" : "" }, ...cells);
  }));
}

function showLegend(name) {
  const { limit, explanation } = state.drawing;
  if (explanation === null) {
    element("legend").replaceChildren(model.no_explanation);
    return;
  }
  const ends = ["evidence against ", "evidence for "].map((text) => make("span", {}, text, labelElement(name)));
  const numbers = [-limit, 0, limit].map((value) => make("span", { class: "small" }, number(value, 2)));
  element("legend").replaceChildren(make("p", {}, ...ends), make("div", { class: "scale" }), make("p", {}, ...numbers));
}

export function summarize() {
  const { input, count, counts, correct, status } = state.result;
  const sorted = [...counts].sort((a, b) => b[1] - a[1]);
  const parts = sorted
    .slice(0, 8)
    .map(([name, n]) => make("span", { class: "count" }, labelElement(name), `: ${grouped(n)}`));
  if (sorted.length > 8) parts.push(`and ${grouped(sorted.length - 8)} others`);
  const endings = { running: " so far", complete: "", incomplete: ", incomplete" };
  const share = `; ${grouped(correct)} predictions match the label (${number((100 * correct) / count, 3)} %)`;
  element("summary").textContent =
    `${printable(input.name)}: ${grouped(count)} series${endings[status]}${input.omitted.size ? share : ""}.`;
  element("counts").replaceChildren("Predicted:", ...parts);
  element("count").textContent = `of ${grouped(count)}`;
  element("number").max = count;
  element("download").disabled = status === "running";
}
