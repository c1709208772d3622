// The still pictures of the details, which are closed at first
Promise.all(all("img[data-still]").map(async (still) => {
  still.src = URL.createObjectURL(new Blob([await unpacked(still.dataset.still)], {type: "image/svg+xml"}));
}));

// Downloads
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

// Reading: light and dark, contents, links into what is closed, print
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
