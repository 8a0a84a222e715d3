// What the user does, and the description of the model.

import { element, model, state } from "./model.js";
import { draw } from "./plot.js";
import { predict } from "./predict.js";
import { isRecording, predictRecordings } from "./recordings.js";
import { PREDICTIONS } from "./requests.js";
import { select } from "./results.js";
import { grouped, make, printable, shorten } from "./text.js";

function openFile(file) {
  start({ name: file.name, blob: file, omitted: new Set() });
}

function submit() {
  start({ name: "pasted rows", blob: new Blob([element("rows").value]), omitted: new Set() });
}

async function start(input) {
  element("recordings").hidden = true;
  await ((await isRecording(input)) ? predictRecordings(input) : predict(input));
}

function listenToInput() {
  element("paste").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  element("rows").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
  });
  element("file").addEventListener("click", (event) => {
    event.target.value = ""; // so that the same file can be chosen again after it has changed
  });
  element("file").addEventListener("change", (event) => {
    if (event.target.files.length) openFile(event.target.files[0]);
  });
  element("stop").addEventListener("click", () => state.predicting?.abort());
}

function listenToDrops() {
  addEventListener("dragover", (event) => {
    event.preventDefault();
    element("drop").classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) element("drop").classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    element("drop").classList.remove("over");
    const { files } = event.dataTransfer;
    if (files.length) {
      openFile(files[0]);
    } else {
      element("rows").value = event.dataTransfer.getData("text/plain");
      submit();
    }
  });
}

function listenToResults() {
  element("previous").addEventListener("click", () => select(state.selected - 1));
  element("next").addEventListener("click", () => select(state.selected + 1));
  element("number").addEventListener("change", (event) => select(event.target.value - 1));
  addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, pre")) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.target.closest("table")) Object.assign(steps, { ArrowUp: -1, ArrowDown: 1 });
    if (!(event.key in steps) || !state.result) return;
    event.preventDefault();
    select(state.selected + steps[event.key]);
  });
  element("download").addEventListener("click", download);
  new ResizeObserver(() => {
    if (state.drawing && state.drawing.width !== element("plot").clientWidth) draw();
  }).observe(element("plot"));
}

function download() {
  const { names, pieces, end } = state.result;
  const parts = [names, ...pieces.flatMap(({ reply }) => ["\n", reply]), end];
  const link = make("a", { download: "predictions.csv" });
  link.href = URL.createObjectURL(new Blob(parts, { type: "text/csv" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

function list(names, most) {
  return names.length <= most ? names.join(", ") : `${names.slice(0, most - 1).join(", ")}, \u2026 ${names.at(-1)}`;
}

function describeModel() {
  const facts = {
    task: model.task,
    [`${grouped(model.classes.length)} ${model.columns ? "targets" : "classes"}`]: list(model.classes.map(shorten), 8),
    input: model.takes,
    "missing values": model.missing_values === "error" ? "rejected" : "filled in",
    ...(model.version && { "trained by": `lstm-fcn ${model.version}` }),
  };
  element("facts").replaceChildren(...Object.entries(facts).map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", { class: "label" }, printable(value)))));
}

function describeInput() {
  const sentences = model.columns
    ? [`CSV with a header: the columns ${list(model.columns, 4)} in any order, without targets; one series per row.`]
    : ["CSV without a header: one series per row, without a label."];
  if (!model.columns && model.variables > 1) {
    sentences.push("A row has all values of the first variable, then all values of the next one.");
  }
  if (model.recording) {
    const { id, time, values } = model.recording;
    const columns = [id, time, ...values].filter((name) => name !== null);
    sentences.push(`Or whole recordings: CSV with the columns ${list(columns, 6)}.`);
  }
  if (model.length_policy !== "error") sentences.push("Series may be shorter.");
  if (model.missing_values !== "error") sentences.push("Empty cells are missing values.");
  element("wanted").textContent = printable(sentences.join(" "));
  element("command").textContent = [
    "curl --data-binary @series.csv -H 'Content-Type: text/csv' \\",
    `    -H 'Accept: ${PREDICTIONS}' \\`,
    `    ${new URL("invocations", location.href)}`,
  ].join("\n");
}

listenToInput();
listenToDrops();
listenToResults();
describeModel();
describeInput();
