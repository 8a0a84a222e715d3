// Requests to the server, and messages about their errors.

import { withoutOmitted } from "./csv.js";
import { element, model } from "./model.js";
import { labelElement, printable } from "./text.js";

export const PREDICTIONS = 'text/csv; output="predicted_label,probabilities"; header=present';
const EXPLANATION = 'application/json; output="explanation"';

export class InputError extends Error {} // its message is shown to the user

// Send CSV; if the server is busy (503), send it again after the delay that the response names.
export async function post(body, accept, signal) {
  const headers = { "Content-Type": "text/csv", Accept: accept };
  try {
    for (;;) {
      const response = await fetch("invocations", { method: "POST", body, headers, signal });
      const text = await response.text();
      if (response.status !== 503) return { status: response.status, text };
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    }
  } catch (error) {
    throw signal.aborted ? error : new InputError("The server does not respond. Is it still running?");
  }
}

// The explanation of one row: a number for each time step of the model.
export async function fetchExplanation(input, line, signal) {
  const header = model.columns ? `${withoutOmitted(input, input.header)}\n` : "";
  const { status, text } = await post(header + withoutOmitted(input, line), EXPLANATION, signal);
  if (status !== 200) throw new InputError(text.trim());
  return JSON.parse(text).predictions[0].explanation;
}

// Translate the rows and columns of a request in the server's messages to rows and columns of the user's file.
export function locate(message, { input, count }, shift) {
  return message
    .replace(/^request, row (\d+)(?:, column (\d+))?/, (_, row, column) => {
      const place = `${input.name}, row ${Number(row) + shift}`;
      return column ? `${place}, column ${columnInFile(input, Number(column))}` : place;
    })
    .replace(/^Series (\d+) of the request/, (_, index) => `${input.name}: series ${count + Number(index)}`);
}

function columnInFile(input, column) {
  for (let k = 0; ; k++) {
    if (!input.omitted.has(k)) column -= 1;
    if (!column) return k + 1;
  }
}

export function messageOf(error) {
  if (error instanceof InputError) return error.message;
  if (error.name === "NotReadableError") return "The file could not be read or has changed. Choose it again.";
  console.error(error);
  return `Internal error of this page: ${error.message}`;
}

export function hideMessage() {
  element("problem").hidden = true;
}

// Show a message and, if some columns look like labels, a button that predicts without them.
export function showMessage(message, columns = [], predictWithout = null) {
  const names = columns.slice(0, 4).flatMap(([, name], k) => [k ? ", " : "", labelElement(name)]);
  if (columns.length > 4) names.push(", \u2026");
  const what = model.columns ? "These columns look like targets: " : "The first column looks like a label: ";
  element("labels").replaceChildren(what, ...names, ".");
  element("retry").textContent = `Ignore ${columns.length > 1 ? "them" : "it"} and predict`;
  element("retry").onclick = () => predictWithout(new Set(columns.map(([k]) => k)));
  element("offer").hidden = !columns.length;
  element("message").textContent = printable(message);
  element("problem").hidden = false;
}
