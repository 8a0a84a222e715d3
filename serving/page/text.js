// Elements and texts. A label is always text, never markup.

const MAX_CHARACTERS = 32; // of a label

export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Replace characters that are invisible or that change the direction of others.
export const printable = (text) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "\ufffd");

// A long label keeps both ends, as either may distinguish it from others.
export function shorten(label) {
  const characters = Array.from(printable(label));
  if (characters.length <= MAX_CHARACTERS) return characters.join("");
  const half = MAX_CHARACTERS / 2;
  return `${characters.slice(0, half).join("")}\u2026${characters.slice(1 - half).join("")}`;
}

export const labelElement = (label) =>
  make("bdi", { class: "label", title: printable(label) }, shorten(label) || "none");

export const grouped = (count) => count.toLocaleString("en");
export const number = (value, digits = 6) => String(Number(value.toPrecision(digits))).replace("-", "\u2212");
export const probability = (value) => (value > 0 && value < 0.0005 ? "< 0.001" : value.toFixed(3));
