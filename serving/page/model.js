// What the page knows about the model, and what it currently shows.

export const element = (id) => document.getElementById(id);

export const model = JSON.parse(element("model").textContent);

export const state = {
  input: null, // given last: { name, blob, omitted }; columns whose index is in the set `omitted` are not sent
  result: null, // of the last prediction
  selected: 0, // index of the series that is shown
  predicting: null, // AbortController of the prediction in progress
  showing: null, // AbortController of the series that is being loaded
  drawing: null, // values, explanation and colour limit of the plot
};
