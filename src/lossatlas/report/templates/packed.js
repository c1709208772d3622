// What is packed into the page. All scripts run in one function, in the order packed, colours, views, reading.
const root = document.documentElement;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
root.classList.add("scripted");

const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const unpacked = (key) => {
  const packed = new Blob([bytesOf(document.getElementById(key).textContent)]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
};
const textOf = async (key) => new TextDecoder().decode(await unpacked(key));

let plotly;  // read when the first view comes near, since it takes a while
const loadPlotly = () => plotly ??= textOf("plotly").then((source) => {
  const context = HTMLCanvasElement.prototype.getContext;  // plotly reads its letters back, which browsers want announced
  HTMLCanvasElement.prototype.getContext = function (type, options) {
    return context.call(this, type, type === "2d" ? {willReadFrequently: true, ...options} : options);
  };
  document.head.append(make("script", {textContent: source}));
  return window.Plotly;
});

const nested = (flat, shape) => {
  if (shape.length < 2) return flat;
  const step = flat.length / shape[0];
  return Array.from({length: shape[0]}, (_, k) => nested(flat.subarray(k * step, (k + 1) * step), shape.slice(1)));
};
const decoded = (value) => {
  if (Array.isArray(value)) return value.map(decoded);
  if (!value || typeof value !== "object") return value;
  if (value.bdata === undefined) return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, decoded(each)]));
  return nested(new Float32Array(bytesOf(value.bdata).buffer), value.shape.split(",").map(Number));
};
