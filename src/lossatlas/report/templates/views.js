// Views: panels side by side, with a slider and choices.
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
