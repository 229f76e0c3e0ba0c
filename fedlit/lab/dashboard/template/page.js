// The page: controls, and panels in a queue so that the first ones stand at once.

const page = JSON.parse(document.getElementById("data").textContent);
const state = { score: startScore(), axis: "round", logX: false, logTraffic: false, pick: "last", lines: 0, hidden: new Set(), theme: 0 };
const MAX_PARTITIONS = 12;
const CONFIG = { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "resetScale2d"]] };
let queue = [];
let isRunning = false;

function startScore() {
  return new Set(page.groups.map((group) => group.main).filter((main) => main !== null)).size > 1 ? MAIN : 0;
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A short piece of a line, or a square, in the colours of the scheme. */
function swatch(style, shape) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const size = shape === "line" ? [26, 10] : [13, 13];
  for (const [key, value] of Object.entries({ width: size[0], height: size[1], "aria-hidden": "true" })) svg.setAttribute(key, value);
  const add = (name, attributes) => {
    const part = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
    svg.append(part);
  };
  if (shape === "line") {
    const dashes = { solid: "none", dash: "7 3", dot: "2 3", dashdot: "7 3 2 3" };
    add("line", { x1: 0, x2: 26, y1: 5, y2: 5, stroke: style.color, "stroke-width": 3, "stroke-dasharray": dashes[style.dash] });
    return svg;
  }
  add("rect", { width: 13, height: 13, rx: 2, fill: style.color });
  for (const x of style.hatched ? [-8, -2, 4, 10] : []) add("line", { x1: x, y1: 13, x2: x + 13, y2: 0, stroke: "var(--page)", "stroke-width": 1.6 });
  return svg;
}

// Controls

function setOptions(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  if (chosen !== undefined) select.value = chosen;
}

function fillSelect(id, options, onChange, chosen) {
  const select = document.getElementById(id);
  setOptions(select, options, chosen);
  select.addEventListener("change", () => onChange(select.value));
}

function buildControls() {
  const mains = startScore() === MAIN ? [[MAIN, "main one of each data set"]] : [];
  fillSelect("score", [...mains, ...page.scores.map((score, i) => [i, score.heading])], (value) => change({ score: Number(value) }));
  fillSelect("axis", [["round", "round"], ...page.costs.map((cost) => [cost.key, `${cost.heading} (${cost.unit})`])], (value) => change({ axis: value }));
  fillSelect("colour", page.factors.map((factor, i) => [i, factor.name.replaceAll("_", " ")]), (value) => change({ lines: Number(value), hidden: new Set() }));
  document.getElementById("colour-label").hidden = page.factors.length < 2;
  document.getElementById("pick").addEventListener("change", (event) => change({ pick: event.target.value }));
  document.getElementById("log-x").addEventListener("change", (event) => change({ logX: event.target.checked }));
  document.getElementById("log-traffic").addEventListener("change", (event) => change({ logTraffic: event.target.checked }));
  document.getElementById("bar").hidden = !page.scores.length;
  for (const id of ["curves", "methods", "traffic"]) document.querySelector(`#${id} .controls`).hidden = !page.scores.length;
}

function buildLegend() {
  const legend = document.getElementById("legend");
  const focused = [...legend.children].indexOf(document.activeElement);
  legend.replaceChildren(
    ...page.factors[state.lines].values.map((name, i) => {
      const button = element("button", { type: "button", "aria-pressed": String(!state.hidden.has(i)) }, swatch(look(page, page.factors[state.lines].slots[i], isDark()), "line"), name);
      button.addEventListener("click", () => {
        const hidden = new Set(state.hidden);
        if (!hidden.delete(i)) hidden.add(i);
        change({ hidden });
      });
      return button;
    }),
  );
  legend.children[focused]?.focus();
}

function change(part) {
  Object.assign(state, part);
  build();
}

// Panels

/** Fill a section with its panels; `chart` makes one, `height` is what it takes, so that nothing moves when it comes. */
function buildSection(id, panels, chart, height) {
  const holder = document.querySelector(`#${id} [data-panels]`);
  const several = panels.length > 1;
  holder.className = `panels${several ? "" : " one"}`;
  holder.style.setProperty("--columns", numColumns(page, state.lines));
  while (holder.children.length > panels.length) removeFigure(holder.lastElementChild);
  panels.forEach((panel, i) => {
    const figure = holder.children[i] ?? holder.appendChild(element("figure", {}, element("figcaption"), element("div", { class: "chart", role: "img" }), element("p", { class: "absent" })));
    const [caption, box, absent] = figure.children;
    caption.textContent = panel.title;
    caption.hidden = !several || !panel.title;
    box.style.minHeight = `${height(panel)}px`;
    const score = scoreOf(page, panel, state.score);
    const without = panel.groups.filter((group) => !group.last[score?.key]).map((group) => group.name);
    absent.textContent = without.length ? `no trained round yet: ${without.join(", ")}` : "";
    queue.push({ box, make: () => chart(panel, box.clientWidth), file: `${page.name}-${id}-${panel.title || "all"}` });
  });
}

function removeFigure(figure) {
  window.Plotly?.purge(figure.querySelector(".chart"));
  figure.remove();
}

function isOnScreen({ box }) {
  const { top, bottom } = box.getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
}

/** Charts on the screen first; one at a time, so that the page stays responsive. */
function drawNext() {
  const [job] = queue.splice(Math.max(queue.findIndex(isOnScreen), 0), 1);
  if (!job) {
    isRunning = false;
    document.documentElement.dataset.drawn = String(document.querySelectorAll(".js-plotly-plot").length);
    return;
  }
  setTimeout(drawNext, 0);
  draw(job);
}

function draw({ box, make, file }) {
  const { traces, layout, text, isEmpty } = make();
  box.setAttribute("aria-label", text);
  if (isEmpty) {
    window.Plotly.purge(box);
    box.className = "chart empty";
    box.textContent = "nothing to draw yet";
    return;
  }
  if (box.classList.contains("empty")) box.replaceChildren();
  box.classList.remove("empty");
  const options = { ...CONFIG, toImageButtonOptions: { filename: file.replace(/[^A-Za-z0-9._-]+/g, "-"), scale: 2 } };
  window.Plotly.react(box, traces, layout, options);
}

function startQueue() {
  delete document.documentElement.dataset.drawn;
  if (isRunning || !window.Plotly) return;
  isRunning = true;
  drawNext();
}

function build() {
  queue = queue.filter((job) => job.isKept);
  buildLegend();
  const colours = pageColours();
  const all = panelsOf(page, state.lines);
  const panels = all.filter((panel) => panel.groups.some((group) => group.rounds.length));
  const several = panels.length > 1;
  const height = several ? 270 : 440;
  const spans = (valuesOf) => sharedSpans(page, panels, state.score, valuesOf);
  const pointsIn = (group, panel) => pointsOf(group, group.curves[scoreOf(page, panel, state.score)?.key], state.axis, state.logX);
  const seedsOf = (pick) => (group, panel) => group[pick][scoreOf(page, panel, state.score)?.key]?.seeds ?? [];
  const curveRanges = {
    x: spans((group, panel) => pointsIn(group, panel).map((point) => point.x)),
    y: spans((group, panel) => pointsIn(group, panel).flatMap((point) => [point.low, point.high])),
  };
  const dotRanges = { x: spans(seedsOf(state.pick)) };
  const trafficRanges = { y: spans(seedsOf("last")) };
  buildSection("curves", panels, (panel) => curvesChart(page, panel, state, colours, curveRanges, height), () => height);
  buildSection("methods", panels, (panel) => dotsChart(page, panel, state, colours, dotRanges), (panel) => 64 + 30 * panel.groups.length);
  buildSection("traffic", panels, (panel, width) => trafficChart(page, panel, state, colours, trafficRanges, height, width), () => height);
  buildClients(colours);
  buildClaims(colours);
  buildLabels(colours);
  writeCaptions(panels, all.filter((panel) => !panels.includes(panel)));
  startQueue();
}

function writeCaptions(panels, missing) {
  const score = state.score === MAIN ? null : page.scores[state.score];
  const what = score ? score.heading : "The main score of each data set";
  const kinds = new Set(panels.map((panel) => scoreOf(page, panel, state.score)).filter(Boolean).map((one) => (one.lower_is_better ? "lower is better" : "higher is better")));
  const direction = kinds.size === 1 ? `, ${[...kinds][0]}` : "";
  const seeds = Math.max(...page.groups.map((group) => group.num_seeds));
  const band = seeds > 1 ? ` Lines are means over ${page.repeat}s, bands reach from the lowest ${page.repeat} to the highest; where fewer ${page.repeat}s have got that far, a thin line goes on with their mean.` : "";
  const scales = panels.length > 1 ? " Panels of one data set share their scales." : "";
  const titles = missing.map((panel) => panel.title).filter(Boolean);
  const named = titles.slice(0, 6).join("; ") + (titles.length > 6 ? `; and ${titles.length - 6} more` : "");
  const absent = page.scores.length && named ? ` Nothing yet from ${named}.` : "";
  const write = (id, text) => (document.querySelector(`#${id} [data-caption]`).textContent = page.scores.length ? text + absent : "No score has been recorded yet.");
  write("curves", `${what}${direction}.${band}${scales}${state.logX ? "" : " Round 0 is the untrained model."}`);
  const pick = state.pick === "last" ? "after the last round" : `of the best trained round${page.legend && " †"}`;
  const chosen = state.pick === "best" && page.legend ? ` ${page.legend}.` : "";
  const spread = seeds > 1 ? ` Large marks are means over ${page.repeat}s, small ones the ${page.repeat}s.` : "";
  write("methods", `${what} ${pick}${direction}; the best stands on top.${spread}${chosen} A star: some ${page.repeat}s are missing or not done; those on their way count only where none is done.`);
  write("traffic", `${what} after the last round${direction}, against what all clients together have sent and received until then.`);
}

// Label distributions

function buildLabels(colours) {
  const holder = document.querySelector("[data-labels]");
  if (!holder) return;
  const scheme = isDark() ? "dark" : "light";
  if (holder.dataset.scheme === scheme) return;
  holder.dataset.scheme = scheme;
  queue = queue.filter((job) => !job.isKept);
  holder.querySelectorAll(".js-plotly-plot").forEach((box) => window.Plotly.purge(box));
  holder.replaceChildren(...page.labels.map((data) => labelledData(data, colours)));
}

function labelledData(data, colours) {
  const swatches = data.labels.map((label, i) => element("li", {}, swatch(labelFill(page, data, i, colours), "square"), label));
  const rows = element("div");
  const show = (shards) => shards.forEach((part) => rowOf(rows, data, part).append(partition(data, part, colours)));
  show(data.shards.slice(0, MAX_PARTITIONS));
  const block = element("div", {}, element("h3", {}, data.column ? `${data.data}, by ${data.column}` : data.data), element("ul", { class: "swatches" }, ...swatches), rows);
  if (data.shards.length > MAX_PARTITIONS) {
    const more = element("button", { type: "button", class: "more" }, `Show all ${data.shards.length} partitions`);
    more.addEventListener("click", () => {
      show(data.shards.slice(MAX_PARTITIONS));
      more.remove();
      startQueue();
    });
    block.append(more);
  }
  return block;
}

/** The grid of the partitions that differ in seed and draw alone. */
function rowOf(rows, data, shards) {
  const found = [...rows.children].find((row) => row.dataset.title === shards.title);
  if (found) return found;
  const same = data.shards.filter((other) => other.title === shards.title).length;
  const style = `--columns: ${Math.min(Math.max(same, 2), 4)}`;
  return rows.appendChild(element("div", { class: "panels", "data-title": shards.title, style }));
}

function partition(data, shards, colours) {
  const listed = (name, values) => (values.length ? `${name}${values.length > 1 ? "s" : ""} ${values.join(", ")}` : "");
  const seeds = [listed("draw", shards.draws), listed("seed", shards.seeds)].filter(Boolean).join(", ");
  const skew = shards.skew === null ? "" : `label skew ${shown(shards.skew)}`;
  const box = element("div", { class: "chart", role: "img" });
  const chart = labelsChart(page, data, shards, colours);
  box.style.minHeight = `${chart.layout.height}px`;
  queue.push({ box, make: () => chart, isKept: true, file: `${page.name}-labels-${data.data}-${shards.title}-${seeds}` });
  const details = [seeds, skew].filter(Boolean).join(" · ");
  return element("figure", {}, element("figcaption", {}, shards.title, element("span", {}, details ? ` · ${details}` : "")), box);
}

// Colour scheme

const THEMES = ["auto", "light", "dark"];

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme[0].toUpperCase() + theme.slice(1);
}

function buildTheme() {
  const current = () => document.documentElement.dataset.theme ?? "auto";
  setTheme(current());
  document.getElementById("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length];
    setTheme(next);
    try {
      localStorage.setItem("fedlit-theme", next);
    } catch {
      // a page from disk may be denied storage; the scheme lasts as long as the page
    }
    build();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);
}

/** Paper is white: draw for it, all of it at once. */
function buildPrinting() {
  let before = "auto";
  const drawAll = () => {
    build();
    while (queue.length) draw(queue.shift());
  };
  window.addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme ?? "auto";
    setTheme("light");
    drawAll();
  });
  window.addEventListener("afterprint", () => {
    setTheme(before);
    drawAll();
  });
}

buildControls();
fillClients();
fillOptions();
buildTheme();
buildPrinting();
buildRunFilter();
document.querySelectorAll("table.sortable").forEach(makeSortable);
build(); // empty panels of their final height, before the library for the charts is read
document.addEventListener("DOMContentLoaded", startQueue);
