// From groups of seeds to panels: which lines stand in which panel, and what a panel's axes span. No drawing here.

const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star", "pentagon", "hexagon"];
const MAIN = -1; // in place of a score's index: each data set's own main score

/** How a line looks, by its slot: ten colours whole, then the same ones dashed, then dotted. */
function look(page, slot, dark) {
  const shade = page.shades[slot % page.shades.length];
  return {
    color: dark ? shade.dark : shade.light,
    dash: DASHES[Math.floor(slot / page.shades.length) % DASHES.length],
    symbol: SYMBOLS[slot % SYMBOLS.length],
  };
}

/** Panels in the order of their first group: one for each combination of all factors but the one of the lines. */
function panelsOf(page, lines) {
  const panels = new Map();
  for (const group of page.groups) {
    const others = page.factors.map((factor, i) => (i === lines ? null : factor.values[group.values[i]]));
    const title = others.filter((text) => text !== null && text !== "–").join(" · ");
    const key = JSON.stringify(others);
    if (!panels.has(key)) panels.set(key, { title, scale: group.scale, groups: [] });
    panels.get(key).groups.push({ ...group, line: group.values[lines], slot: page.factors[lines].slots[group.values[lines]], name: page.factors[lines].values[group.values[lines]] });
  }
  return [...panels.values()];
}

/** The score of a panel: the chosen one, or the main one of its data set. */
function scoreOf(page, panel, chosen) {
  if (chosen !== MAIN) return page.scores[chosen];
  const known = panel.groups.find((group) => group.main !== null);
  return page.scores[known ? known.main : 0];
}

/** The points of a curve that can be drawn: finite, and above 0 on a logarithmic axis. */
function pointsOf(group, curve, axis, log) {
  const xs = axis === "round" ? group.rounds : group.costs[axis];
  if (!curve || !xs) return [];
  const most = curve.num ? Math.max(...curve.num) : null;
  return xs
    .map((x, i) => ({
      x,
      y: curve.mean[i],
      low: curve.low ? curve.low[i] : curve.mean[i],
      high: curve.high ? curve.high[i] : curve.mean[i],
      num: curve.num ? curve.num[i] : null,
      isWhole: most === null || curve.num[i] === most,
      round: group.rounds[i],
    }))
    .filter((point) => point.x !== null && point.y !== null && (!log || point.x > 0));
}

/** Lowest and highest of some numbers with room around them; null without any. */
function span(values, room = 0.06) {
  const finite = values.filter((value) => Number.isFinite(value));
  if (!finite.length) return null;
  const low = finite.reduce((a, b) => Math.min(a, b));
  const high = finite.reduce((a, b) => Math.max(a, b));
  const margin = (high - low || Math.abs(high) || 1) * room;
  return [low - margin, high + margin];
}

/** The range of an axis for every data set and score, so that panels side by side can be compared. */
function sharedSpans(page, panels, chosen, valuesOf) {
  const values = new Map();
  for (const panel of panels) {
    const key = `${panel.scale}\n${scoreOf(page, panel, chosen)?.key}`;
    if (!values.has(key)) values.set(key, []);
    values.get(key).push(...panel.groups.flatMap((group) => valuesOf(group, panel)));
  }
  return (panel) => span(values.get(`${panel.scale}\n${scoreOf(page, panel, chosen)?.key}`));
}

function mean(values) {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/** A number as a person reads it: three significant digits below 1, four above. */
function shown(value) {
  if (value === null || value === undefined) return "–";
  return value === 0 || Number.isInteger(value) ? String(value) : value.toPrecision(Math.abs(value) < 1 ? 3 : 4);
}

/** The step between ticks of whole numbers, so that there are about six. */
function wholeStep(range) {
  const wanted = range ? (range[1] - range[0]) / 6 : 1;
  const power = 10 ** Math.floor(Math.log10(Math.max(wanted, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= wanted);
}

/** Columns of a grid of panels: one for each value of the last factor that tells panels apart, if they are few. */
function numColumns(page, lines) {
  const nums = page.factors.filter((_, i) => i !== lines).map((factor) => factor.values.length);
  return nums.length && nums.at(-1) <= 4 ? Math.max(nums.at(-1), 2) : 3;
}

/** Text that Plotly, which reads some markup, shows as it stands. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** Where labels stand beside their points without covering one another: "" for those without room. */
function placeLabels(points, width, height) {
  const taken = points.map((point) => ({ left: point.px - 5, right: point.px + 5, top: point.py - 5, bottom: point.py + 5 }));
  const free = (box) =>
    box.left >= 0 && box.right <= width && box.top >= 0 && box.bottom <= height &&
    taken.every((other) => box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom);
  return points.map((point) => {
    const wide = 6.6 * point.text.length;
    const boxes = {
      "middle right": { left: point.px + 8, right: point.px + 10 + wide, top: point.py - 7, bottom: point.py + 7 },
      "middle left": { left: point.px - 10 - wide, right: point.px - 8, top: point.py - 7, bottom: point.py + 7 },
      "top center": { left: point.px - wide / 2, right: point.px + wide / 2, top: point.py - 22, bottom: point.py - 7 },
      "bottom center": { left: point.px - wide / 2, right: point.px + wide / 2, top: point.py + 7, bottom: point.py + 22 },
    };
    const place = Object.keys(boxes).find((name) => free(boxes[name]));
    if (place) taken.push(boxes[place]);
    return place ?? "";
  });
}
