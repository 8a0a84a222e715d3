// Prediction of a file or of pasted rows, piece by piece, so that progress is visible and it can be stopped.

import {
  cellsOf, guessLabelColumns, isBlank, labelOf, parsePrediction, seriesLines, split, withoutOmitted,
} from "./csv.js";
import { element, model, state } from "./model.js";
import { hideMessage, InputError, locate, messageOf, post, PREDICTIONS, showMessage } from "./requests.js";
import { isInTable, select, showTable, summarize } from "./results.js";

const PIECE = Math.min(2 ** 20, model.max_body / 2); // bytes per request

export async function predict(input) {
  state.predicting?.abort();
  const run = (state.predicting = new AbortController());
  const result = { input, pieces: [], count: 0, names: "", end: "", counts: new Map(), correct: 0, status: "running" };
  state.input = input;
  input.header = null;
  hideMessage();
  element("progress").value = 0;
  const soon = setTimeout(() => { element("running").hidden = false; }, 300);
  try {
    await predictPieces(result, run.signal);
    result.status = "complete";
  } catch (error) {
    result.status = "incomplete";
    const columns = await labelColumns(input);
    if (state.predicting === run && !run.signal.aborted) showMessage(messageOf(error), columns, predictWithout);
  }
  clearTimeout(soon);
  if (state.predicting !== run) return; // another input was given meanwhile
  state.predicting = null;
  element("running").hidden = true;
  if (state.result !== result) return;
  summarize();
  element("status").textContent = element("summary").textContent;
}

async function predictWithout(omitted) {
  await predict({ ...state.input, omitted });
  if (document.activeElement === document.body) element("results-title").focus();
}

async function labelColumns(input) {
  if (input.omitted.size) return [];
  try {
    return guessLabelColumns((await read(input, 0, 0)).lines);
  } catch {
    return []; // the error of the prediction itself is shown
  }
}

async function predictPieces(result, signal) {
  const { input } = result;
  for (let start = 0, before = 0; start < input.blob.size;) {
    const piece = await read(input, start, before);
    await add(result, piece, await predictPiece(result, piece, signal));
    start = piece.end;
    before += piece.lines.length;
    element("progress").value = start / input.blob.size;
  }
  if (!result.count) throw new InputError(`${input.name} contains no series.`);
}

// A piece of the input that ends with a line; `before` counts the lines in front of it.
async function read(input, start, before) {
  let bytes;
  for (let size = PIECE; ; size *= 2) {
    bytes = new Uint8Array(await input.blob.slice(start, start + size).arrayBuffer());
    if (start + bytes.length >= input.blob.size || size > model.max_body) break;
    const end = Math.max(bytes.lastIndexOf(10), bytes.lastIndexOf(13, -2)) + 1; // after a newline, not within CRLF
    if (end) {
      bytes = bytes.subarray(0, end);
      break;
    }
  }
  return { start, end: start + bytes.length, before, bytes, lines: split(bytes) };
}

// Send a piece; returns the text of the response, empty if the piece has no series.
async function predictPiece(result, { before, bytes, lines }, signal) {
  const { input } = result;
  let body = bytes;
  if (input.omitted.size && lines.length) body = lines.map((line) => withoutOmitted(input, line)).join("\n");
  let shift = before; // from row numbers of the request to row numbers of the file
  if (input.header !== null) {
    body = new Blob([withoutOmitted(input, input.header), "\n", body]);
    shift -= 1;
  } else if (model.columns) {
    input.header = lines.find((line) => !isBlank(line)) ?? null;
    input.places = new Map(cellsOf(input.header ?? "").map((name, k) => [name.trim(), k]));
  }
  const { status, text } = await post(body, PREDICTIONS, signal);
  signal.throwIfAborted();
  if (status !== 200 && status !== 204) throw new InputError(locate(text.trim(), result, shift));
  return text;
}

// Add the predictions of a piece to the result, and show them.
async function add(result, piece, text) {
  const { input } = result;
  const lines = seriesLines(input, piece.lines);
  const [names, ...predictions] = text ? text.replace(/\n$/, "").split("\n") : [result.names];
  if (text && lines.length !== predictions.length) {
    throw new InputError(`The server returned ${predictions.length} predictions for ${lines.length} series.`);
  }
  if (!predictions.length) return;
  predictions.forEach((line, k) => {
    const { predicted } = parsePrediction(line);
    result.counts.set(predicted, (result.counts.get(predicted) ?? 0) + 1);
    result.correct += input.omitted.size > 0 && labelOf(input, lines[k]) === predicted;
  });
  result.names = names;
  result.end = text.endsWith("\n") ? "\n" : "";
  const { start, end } = piece;
  const reply = new Blob([predictions.join("\n")]);
  result.pieces.push({ start, end, first: result.count, count: lines.length, reply });
  const first = result.count;
  result.count += lines.length;
  if (state.result !== result) {
    state.result = result;
    element("results").hidden = false;
    await select(0);
  } else if (isInTable(first)) {
    await showTable();
  }
  summarize();
}
