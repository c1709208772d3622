// The colours of the views, which are those of the page.
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
