"use strict";
(() => {
const root = document.documentElement;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
if (!("DecompressionStream" in window)) return;  // an old browser: the text and the still pictures are all there
root.classList.add("scripted");

// ---- contents that are packed into the page
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

// ---- colours of the views, those of the page
const colours = () => {
  const probe = document.body.appendChild(make("i"));
  const of = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  const found = {ink: of("ink"), soft: of("soft"), rule: of("rule"), paper: of("paper")};
  probe.remove();
  return found;
};
const FILLED = new Set(["contour", "heatmap", "image", "histogram2d", "histogram2dcontour"]);
const IN_SPACE = new Set(["surface", "scatter3d", "mesh3d", "isosurface", "volume", "cone", "streamtube"]);
const axesOf = ({data, layout}) => {
  const flat = data.filter((trace) => !IN_SPACE.has(trace.type)).flatMap(({xaxis = "x", yaxis = "y"}) => [xaxis, yaxis]);
  const names = flat.map((name) => name.replace(/^([xy])/, "$1axis"));
  const scenes = data.filter((trace) => IN_SPACE.has(trace.type)).map((trace) => trace.scene ?? "scene");
  const given = Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));
  return {flat: [...new Set([...names, ...given])], scenes: [...new Set(scenes)]};
};
const layoutColours = (panel) => {
  const {ink, soft, rule, paper} = colours();
  const clear = "rgba(0,0,0,0)";
  const found = {
    paper_bgcolor: clear, plot_bgcolor: clear, "font.color": ink, "legend.bgcolor": clear, "hoverlabel.bgcolor": paper,
    "hoverlabel.bordercolor": soft, "hoverlabel.font.color": ink, "modebar.bgcolor": clear, "modebar.color": soft,
    "modebar.activecolor": ink,
  };
  const {flat, scenes} = axesOf(panel);
  for (const axis of flat) Object.assign(found, {[`${axis}.gridcolor`]: rule, [`${axis}.linecolor`]: soft, [`${axis}.zerolinecolor`]: rule});
  if (isFilled(panel) && blackIn(panel).length) Object.assign(found, {"legend.bgcolor": "#ffffff", "legend.font.color": "#1c2329"});
  for (const scene of scenes) for (const axis of ["xaxis", "yaxis", "zaxis"]) {
    const at = `${scene}.${axis}`;
    Object.assign(found, {[`${at}.gridcolor`]: rule, [`${at}.zerolinecolor`]: rule, [`${at}.backgroundcolor`]: clear});
  }
  return found;
};
const BLACK = new Set(["black", "#000", "#000000", "rgb(0,0,0)", "rgb(0, 0, 0)"]);
const COLOURED = ["line.color", "marker.color", "marker.line.color", "textfont.color", "error_y.color", "fillcolor"];
const at = (object, path) => path.split(".").reduce((found, key) => found?.[key], object);
const put = (object, path, value) => {
  const keys = path.split(".");
  const last = keys.pop();
  keys.reduce((found, key) => found[key] ??= {}, object)[last] = value;
};
const isFilled = ({data}) => data.some((trace) => FILLED.has(trace.type));
const blackIn = ({data}) => data.flatMap((trace, index) =>
  COLOURED.filter((path) => BLACK.has(at(trace, path))).map((path) => ({index, path})));
// What is black on the paper takes the page's ink; on filled areas black stays black.
const inked = (panel) => isFilled(panel) ? [] : blackIn(panel);

// ---- views
const FLAT_BUTTONS = [["zoom2d", "pan2d", "resetScale2d"]];
const SPACE_BUTTONS = [["orbitRotation", "pan3d", "zoom3d", "resetCameraDefault3d"]];
const configOf = (scenes) => ({
  displaylogo: false, displayModeBar: "hover", scrollZoom: false,  // the wheel scrolls the page
  modeBarButtons: scenes.length ? SPACE_BUTTONS : FLAT_BUTTONS,
});
const webgl = (() => {
  let found;
  return () => found ??= Boolean(make("canvas").getContext("webgl"));
})();
const MANY = 10;  // a browser keeps about 16 scenes at a time, and loses the oldest
const shown = new Set();

class Drawing {
  constructor(figure) {
    this.figure = figure;
    this.choice = [];
  }

  async draw() {
    if (this.drawing) return this.drawing;
    return this.drawing = this.drawOnce();
  }

  async drawOnce() {
    this.view ??= decoded(JSON.parse(await textOf(this.figure.dataset.view)));
    this.scenes = this.view.panels.flatMap((panel) => axesOf(panel).scenes).length;
    if (this.scenes && !webgl()) return;
    const library = await loadPlotly();
    this.box ??= this.build();
    this.figure.classList.add("drawing");
    await Promise.all(this.view.panels.map((panel, k) => this.drawPanel(library, panel, this.panels[k])));
    this.chosen = this.selects.map(() => "0").join(",");
    if (this.selects.some((select) => select.value !== "0")) await this.choose();
    else if (this.range) this.tell();
    this.figure.classList.replace("drawing", "drawn");
    this.width = this.box.clientWidth;
    shown.add(this);
    performance.mark(this.figure.dataset.view);
    makeRoom(this);
  }

  build() {
    const {panels, widths, slider, choices} = this.view;
    this.panels = panels.map((panel, k) => make("div", {className: "panel", style: `flex: ${widths[k]} 1 0`}));
    this.controls = make("div", {className: "controls"});
    if (slider) this.controls.append(...this.buildSlider(slider));
    this.selects = choices.toReversed().map((choice) => this.buildChoice(choice)).reverse();  // each is put first
    const label = this.figure.querySelector(".still").alt;
    const box = make("div", {className: "view", role: "group", ariaLabel: label}, make("div", {className: "panels"}, ...this.panels));
    if (this.controls.children.length) box.append(this.controls);
    this.figure.prepend(box);
    new ResizeObserver(() => this.resize()).observe(box);
    return box;
  }

  buildSlider(slider) {
    this.range = make("input", {type: "range", min: 0, max: slider.labels.length - 1, step: 1, value: slider.start});
    this.place = make("span", {className: "place"});
    this.readout = make("output", {ariaLive: "polite"});
    this.range.addEventListener("input", () => this.move());
    this.player = make("button", {type: "button", textContent: "Play"});
    this.player.addEventListener("click", () => this.play());
    return [this.player, make("label", {className: "slider"}, slider.name, this.range, this.place), this.readout];
  }

  buildChoice(choice) {
    const select = make("select", {}, ...choice.options.map((name, k) => make("option", {value: k, textContent: name})));
    select.addEventListener("change", () => this.choose());
    this.controls.prepend(make("label", {}, choice.name, select));
    return select;
  }

  async drawPanel(library, panel, place) {
    const layout = structuredClone(panel.layout);
    const data = this.startOf(panel);
    for (const [path, value] of Object.entries(layoutColours(panel))) put(layout, path, value);
    layout.font = {family: getComputedStyle(this.controls).fontFamily, size: 12, ...layout.font};
    layout.autosize = true;
    delete layout.width;
    layout.height = this.heightOf(panel);
    const {scenes} = axesOf(panel);
    layout.margin = {...(scenes.length ? {l: 0, r: 0, t: 30, b: 0} : {l: 60, r: 20, t: 35, b: 45}), ...layout.margin};
    await library.newPlot(place, data, layout, configOf(scenes));
    if (!place.dataset.listens) this.listen(panel, place);
  }

  // The traces at the slider's position and in the page's colours, so that they are drawn once.
  startOf(panel) {
    const data = structuredClone(panel.data);  // plotly changes what it is given
    const colour = colours().ink;
    for (const {index, path} of inked(panel)) put(data[index], path, colour);
    const here = this.range ? this.view.slider.moves.filter((move) => this.view.panels[move.panel] === panel) : [];
    for (const {trace, values} of here) for (const [name, rows] of Object.entries(values)) {
      put(data[trace], name, rowOf(name, rows[Number(this.range.value)]));
    }
    return data;
  }

  heightOf(panel) {
    return Math.min(panel.layout.height ?? 420, Math.max(300, 0.95 * (this.box ?? this.figure).clientWidth));
  }

  listen(panel, place) {
    const {scenes} = axesOf(panel);
    place.dataset.listens = scenes.join(" ");
    if (!scenes.length) return;
    place.tabIndex = 0;
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", "View in space: arrow keys turn it, + and − zoom");
    place.addEventListener("keydown", (event) => this.turn(event, place, scenes));
    for (const name of ["plotly_relayout", "plotly_relayouting"]) place.on(name, (change) => this.follow(place, change));
  }

  turn(event, place, scenes) {
    const around = {ArrowLeft: -1, ArrowRight: 1}[event.key] ?? 0;
    const up = {ArrowUp: 1, ArrowDown: -1}[event.key] ?? 0;
    const zoom = {"+": 0.9, "-": 1 / 0.9}[event.key] ?? 1;
    if (event.target !== place || (!around && !up && zoom === 1)) return;
    event.preventDefault();
    const camera = structuredClone(place._fullLayout[scenes[0]].camera);
    const {x, y, z} = camera.eye;
    const radius = zoom * Math.hypot(x, y, z);
    const angle = Math.atan2(y, x) + 0.12 * around;
    const height = Math.max(-1.5, Math.min(1.5, Math.asin(z / Math.hypot(x, y, z)) + 0.12 * up));
    camera.eye = {x: radius * Math.cos(height) * Math.cos(angle), y: radius * Math.cos(height) * Math.sin(angle), z: radius * Math.sin(height)};
    window.Plotly.relayout(place, Object.fromEntries(scenes.map((scene) => [`${scene}.camera`, camera])));
  }

  // The cameras of linked panels; one that is turned here must not turn the first one back.
  async follow(source, change) {
    const key = Object.keys(change).find((name) => name.endsWith(".camera"));
    if (!this.view.linked || !key || this.following) return;
    this.following = true;
    const others = this.panels.filter((panel) => panel !== source && panel.dataset.listens);
    await Promise.all(others.map((panel) => window.Plotly.relayout(panel, {[`${panel.dataset.listens.split(" ")[0]}.camera`]: change[key]})));
    this.following = false;
  }

  tell() {
    const {labels, readouts} = this.view.slider;
    const k = Number(this.range.value);
    this.place.textContent = labels[k];
    this.range.setAttribute("aria-valuetext", labels[k]);
    this.readout.textContent = readouts[k] ?? "";
  }

  // As often as the screen is drawn, whatever the slider does in between.
  move() {
    this.tell();
    return this.waiting ??= new Promise(requestAnimationFrame).then(() => {
      this.waiting = undefined;
      return this.moveTo(Number(this.range.value));
    });
  }

  // One redrawing for all traces of a panel that change the same attributes.
  moveTo(k) {
    const groups = Map.groupBy(this.view.slider.moves, ({panel, values}) => `${panel} ${Object.keys(values)}`);
    return Promise.all([...groups.values()].map((moves) => {
      const rows = (name) => moves.map(({values}) => rowOf(name, values[name][k]));
      const changes = Object.fromEntries(Object.keys(moves[0].values).map((name) => [name, rows(name)]));
      return window.Plotly.restyle(this.panels[moves[0].panel], changes, moves.map(({trace}) => trace));
    }));
  }

  play() {
    if (this.timer) return this.pause();
    if (Number(this.range.value) >= Number(this.range.max)) this.range.value = 0;
    this.player.textContent = "Pause";
    const pace = Math.max(60, Math.min(500, 6000 / (Number(this.range.max) + 1)));
    this.timer = setInterval(() => {
      if (Number(this.range.value) >= Number(this.range.max)) return this.pause();
      this.range.value = Number(this.range.value) + 1;
      this.move();
    }, pace);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = undefined;
    this.player.textContent = "Play";
  }

  async choose() {
    const key = this.selects.map((select) => select.value).join(",");
    const made = new Set(this.view.changes[this.chosen]?.map((change) => JSON.stringify(change)));
    this.chosen = key;
    for (const change of this.view.changes[key] ?? []) {
      if (made.has(JSON.stringify(change))) continue;  // so that a camera stays where it was turned to
      const {panel, trace, values} = change;
      const place = this.panels[panel];
      if (trace === null) await window.Plotly.relayout(place, {...values});
      else await window.Plotly.restyle(place, Object.fromEntries(Object.entries(values).map(([name, value]) => [name, [value]])), [trace]);
    }
    if (this.range) await this.move();
  }

  resize() {
    if (!this.figure.classList.contains("drawn") || !this.box.clientWidth || this.box.clientWidth === this.width) return;
    this.width = this.box.clientWidth;
    this.view.panels.forEach((panel, k) => window.Plotly.relayout(this.panels[k], {height: this.heightOf(panel), autosize: true}));
  }

  async recolour() {
    for (const [k, panel] of this.view.panels.entries()) {
      await window.Plotly.relayout(this.panels[k], layoutColours(panel));
      const colour = colours().ink;
      for (const {index, path} of inked(panel)) await window.Plotly.restyle(this.panels[k], {[path]: colour}, [index]);
    }
  }

  release() {
    if (this.timer) this.pause();
    this.figure.classList.remove("drawn");
    for (const [k, place] of this.panels.entries()) {
      for (const scene of axesOf(this.view.panels[k]).scenes) put(this.view.panels[k].layout, `${scene}.camera`, place._fullLayout[scene].camera);
      window.Plotly.purge(place);
      delete place.dataset.listens;
    }
    this.drawing = undefined;
    shown.delete(this);
  }
}

const rowOf = (name, value) => ["x", "y", "z"].includes(name) && !Array.isArray(value) && !ArrayBuffer.isView(value) ? [value] : value;
const distance = (drawing) => Math.abs(drawing.figure.getBoundingClientRect().top);
// The scenes that are farthest away go back to their stills when there are more than a browser keeps.
const makeRoom = (latest) => {
  const others = [...shown].filter((drawing) => drawing !== latest && drawing.scenes).sort((a, b) => distance(a) - distance(b));
  let count = latest.scenes;
  for (const drawing of others) if ((count += drawing.scenes) > MANY) drawing.release();
};

const drawings = new Map(all("figure[data-view]").map((figure) => [figure, new Drawing(figure)]));
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) drawings.get(entry.target).draw();
}, {rootMargin: "300px 0px"});
for (const figure of drawings.keys()) watch.observe(figure);

// ---- the still pictures of the details, which are closed at first
Promise.all(all("img[data-still]").map(async (still) => {
  still.src = URL.createObjectURL(new Blob([await unpacked(still.dataset.still)], {type: "image/svg+xml"}));
}));

// ---- downloads
const TYPES = {svg: "image/svg+xml", pdf: "application/pdf", png: "image/png", csv: "text/csv", nc: "application/x-netcdf"};
const svgText = (still) => decodeURIComponent(still.src.slice(still.src.indexOf(",") + 1));
const pngOf = async (still) => {
  if (still.src.startsWith("data:image/png")) return new Blob([bytesOf(still.src.split(",")[1])], {type: TYPES.png});
  const picture = make("img", {src: still.src});
  await picture.decode();
  const scale = 1890 / picture.naturalWidth;  // 300 dots an inch over the text width of a page
  const canvas = make("canvas", {width: scale * picture.naturalWidth, height: scale * picture.naturalHeight});
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, TYPES.png));
};
const contentOf = async (button) => {
  const still = button.closest("figure").querySelector(".still");
  const format = button.dataset.file.split(".").pop();
  if (button.dataset.key) return new Blob([await unpacked(button.dataset.key)], {type: TYPES[format]});
  return format === "png" ? pngOf(still) : new Blob([svgText(still)], {type: TYPES.svg});
};
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-file]");
  if (!button) return;
  const href = URL.createObjectURL(await contentOf(button));
  make("a", {href, download: button.dataset.file}).click();
  setTimeout(() => URL.revokeObjectURL(href), 60000);
});

// ---- reading: light and dark, contents, links into what is closed, print
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
const theme = document.getElementById("theme");
const recolour = () => {
  root.classList.toggle("dark", isDark());
  theme.textContent = isDark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", isDark() ? "Light colours" : "Dark colours");
  for (const drawing of shown) drawing.recolour();
};
theme.hidden = false;
theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; recolour(); });
dark.addEventListener("change", recolour);
recolour();

const contents = document.querySelector("nav details");
const wide = matchMedia("(min-width: 75rem)");
const fold = () => { contents.open = wide.matches; };
wide.addEventListener("change", fold);
fold();
contents.addEventListener("click", (event) => { if (event.target.closest("a") && !wide.matches) contents.open = false; });

const links = new Map(all("nav a").map((link) => [document.getElementById(link.hash.slice(1)), link]));
const reading = () => {
  let current;
  for (const [target, link] of links) if (target.getBoundingClientRect().top < 0.3 * innerHeight) current = link;
  for (const link of links.values()) link === current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
};
addEventListener("scroll", reading, {passive: true});
reading();

const reveal = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => { if (event.target.closest('a[href="' + location.hash + '"]')) reveal(); });
if (location.hash) reveal();

let closed = [];
addEventListener("beforeprint", () => {
  closed = all("main details:not([open])");
  for (const each of closed) each.open = true;
});
addEventListener("afterprint", () => { for (const each of closed) each.open = false; });
})();
