// One function for each kind of chart: traces and layout for Plotly from a panel.

/** The page's own colours as they are under its scheme. */
function pageColours() {
  const probe = document.createElement("i");
  document.body.append(probe);
  const read = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const colours = Object.fromEntries(["page", "ink", "muted", "rule", "grid", "other"].map((name) => [name, read(name)]));
  probe.remove();
  return colours;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function baseLayout(colours, height) {
  const axis = {
    gridcolor: colours.grid, zeroline: false, linecolor: colours.rule, tickcolor: colours.rule, automargin: true,
    tickfont: { size: 11.5, color: colours.muted }, title: { font: { size: 12, color: colours.muted }, standoff: 8 }, nticks: 7,
  };
  return {
    height, autosize: true, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'Liberation Sans', sans-serif", size: 12, color: colours.ink },
    margin: { l: 46, r: 12, t: 10, b: 40 }, hovermode: "closest",
    hoverlabel: { bgcolor: colours.page, bordercolor: colours.rule, font: { color: colours.ink, size: 12 }, namelength: -1, align: "left" },
    xaxis: structuredClone(axis), yaxis: structuredClone(axis), modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.ink },
  };
}

function faded(colour, opacity) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${opacity})`;
}

/** The same as a plain text for a screen reader: every line's name and last value. */
function spoken(score, against, panel, values) {
  const parts = panel.groups.map((group, i) => (values[i] === null ? null : `${group.name} ${shown(values[i])}`)).filter(Boolean);
  return `${score?.heading ?? "score"} against ${against}${panel.title ? `, ${panel.title}` : ""}: ${parts.join(", ") || "no values yet"}`;
}

/** Score against round or cost: the mean of the seeds, their band, and a thin end where fewer seeds have got that far. */
function curvesChart(page, panel, state, colours, ranges, height) {
  const score = scoreOf(page, panel, state.score);
  const cost = page.costs.find((axis) => axis.key === state.axis);
  const layout = baseLayout(colours, height);
  const traces = panel.groups.flatMap((group) => {
    const points = pointsOf(group, group.curves[score?.key], state.axis, state.logX);
    return points.length && !state.hidden.has(group.line) ? curveTraces(group, points, look(page, group.slot, isDark()), panel.groups.length) : [];
  });
  layout.xaxis.title.text = cost ? `${cost.heading} (${cost.unit})` : "round";
  layout.xaxis.type = state.logX ? "log" : "linear";
  if (!state.logX) layout.xaxis.range = ranges.x(panel);
  if (!cost && !state.logX) layout.xaxis.dtick = wholeStep(layout.xaxis.range);
  layout.yaxis.title.text = axisText(score);
  layout.yaxis.range = ranges.y(panel);
  layout.hovermode = cost ? "closest" : "x unified";
  const ends = panel.groups.map((group) => pointsOf(group, group.curves[score?.key], state.axis, state.logX).at(-1)?.y ?? null);
  return { traces, layout, text: spoken(score, cost ? cost.heading : "round", panel, ends), isEmpty: ends.every((y) => y === null) };
}

function curveTraces(group, points, style, panelSize) {
  const marked = points.length <= 25;
  const last = points.findLastIndex((point) => point.isWhole);
  const traces = [];
  const opacity = panelSize > 6 ? 0.07 : 0.13;
  if (points.some((point) => point.high > point.low)) {
    const back = points.toReversed();
    traces.push({
      x: [...points, ...back].map((point) => point.x), y: [...points.map((p) => p.high), ...back.map((p) => p.low)],
      fill: "toself", fillcolor: faded(style.color, opacity), line: { width: 0 }, mode: "lines", hoverinfo: "skip",
    });
  }
  const line = (part, width, strength) => ({
    x: part.map((point) => point.x), y: part.map((point) => point.y), name: plain(group.name), opacity: strength,
    mode: marked ? "lines+markers" : "lines", line: { color: style.color, width, dash: style.dash }, marker: { size: 4.5, color: style.color },
    text: part.map((point) => hoverText(group, point)), hovertemplate: "%{text}<extra></extra>",
  });
  traces.push(line(points.slice(0, last + 1), 2, 1));
  if (last + 1 < points.length) traces.push(line(points.slice(last + 1), 1, 0.65));
  return traces;
}

function hoverText(group, point) {
  const seeds = point.num ?? group.num_seeds;
  const spread = point.high > point.low ? ` (${shown(point.low)}–${shown(point.high)})` : "";
  const fewer = point.num !== null && !point.isWhole ? `, ${seeds} ${page.repeat}${seeds === 1 ? "" : "s"} only` : "";
  return `<b>${plain(group.name)}</b> ${shown(point.y)}${spread}${fewer}`;
}

function axisText(score) {
  return score ? plain(score.unit.toLowerCase() === score.heading.toLowerCase() || score.unit === "score" ? score.heading : `${score.heading} (${score.unit})`) : "";
}

/** Methods in order of their score, the best on top: the mean, the seeds around it, and the range they span. */
function dotsChart(page, panel, state, colours, ranges) {
  const score = scoreOf(page, panel, state.score);
  const rows = panel.groups
    .map((group) => ({ group, outcome: group[state.pick][score?.key] }))
    .filter((row) => row.outcome && !state.hidden.has(row.group.line))
    .map((row) => ({ ...row, mean: mean(row.outcome.seeds), style: look(page, row.group.slot, isDark()) }))
    .sort((a, b) => (score.lower_is_better ? a.mean - b.mean : b.mean - a.mean));
  const layout = baseLayout(colours, 64 + 30 * Math.max(panel.groups.length, 1));
  const names = rows.map((row) => plain(row.group.name));
  const [low, high] = ranges.x(panel) ?? [0, 1];
  const traces = [
    ...rows.map((row, i) => ({
      x: [Math.min(...row.outcome.seeds), Math.max(...row.outcome.seeds)], y: [names[i], names[i]], mode: "lines",
      line: { color: faded(row.style.color, 0.45), width: 5 }, hoverinfo: "skip",
    })),
    {
      x: rows.flatMap((row) => row.outcome.seeds), y: rows.flatMap((row, i) => row.outcome.seeds.map(() => names[i])), mode: "markers",
      marker: { size: 5, color: rows.flatMap((row) => row.outcome.seeds.map(() => colours.page)), line: { width: 1.2, color: rows.flatMap((row) => row.outcome.seeds.map(() => row.style.color)) } }, hoverinfo: "skip",
    },
    {
      x: rows.map((row) => row.mean), y: names, mode: "markers",
      marker: { size: 11, symbol: rows.map((row) => row.style.symbol), color: rows.map((row) => row.style.color), line: { width: 1.5, color: colours.page } },
      text: rows.map((row) => outcomeText(row.group, row.outcome, row.mean)), hovertemplate: "%{text}<extra></extra>",
    },
  ];
  const texts = rows.map((row) => `${shown(row.mean)}${row.group.num_done < row.group.num_seeds ? "*" : ""}`);
  layout.margin.r = 20 + 7.5 * Math.max(5, ...texts.map((text) => text.length));
  layout.annotations = texts.map((text, i) => ({
    x: 1, xref: "paper", xanchor: "left", xshift: 10, y: names[i], yref: "y", showarrow: false, text, font: { size: 12.5, color: colours.ink },
  }));
  layout.xaxis.range = [low, high];
  layout.xaxis.nticks = 5;
  layout.xaxis.title.text = axisText(score);
  Object.assign(layout.yaxis, { type: "category", categoryorder: "array", categoryarray: names, range: [rows.length - 0.5, -0.5], dtick: 1, tickfont: { size: 12.5, color: colours.ink }, showgrid: true, ticks: "" });
  const values = panel.groups.map((group) => (group[state.pick][score?.key] ? mean(group[state.pick][score.key].seeds) : null));
  return { traces, layout, text: spoken(score, "method", panel, values), isEmpty: !rows.length };
}

function outcomeText(group, outcome, value) {
  const seeds = outcome.seeds.map((seed, i) => `${shown(seed)} after round ${outcome.rounds[i]}`).join("<br>");
  const open = group.num_seeds - group.num_done;
  return `<b>${plain(group.name)}</b> ${shown(value)}<br>${seeds}${open ? `<br>${open} of ${group.num_seeds} ${page.repeat}s missing or not done` : ""}`;
}

/** The score after the last round against all that was sent up and down until then. */
function trafficChart(page, panel, state, colours, ranges, height, width) {
  const score = scoreOf(page, panel, state.score);
  const layout = baseLayout(colours, height);
  const rows = panel.groups
    .map((group) => ({ group, outcome: group.last[score?.key] }))
    .filter((row) => row.outcome && row.outcome.traffic_mb !== null && !state.hidden.has(row.group.line) && (!state.logTraffic || row.outcome.traffic_mb > 0))
    .map((row) => ({ ...row, mean: mean(row.outcome.seeds), style: look(page, row.group.slot, isDark()) }));
  const scaled = (value) => (state.logTraffic ? Math.log10(value) : value);
  const [left, right] = trafficSpan(rows.map((row) => scaled(row.outcome.traffic_mb)), state.logTraffic);
  const [low, high] = ranges.y(panel) ?? [0, 1];
  const inside = [width - 80, height - 56];
  const places = placeLabels(
    rows.map((row) => ({ text: row.group.name, px: (inside[0] * (scaled(row.outcome.traffic_mb) - left)) / (right - left), py: (inside[1] * (high - row.mean)) / (high - low) })),
    ...inside,
  );
  const traces = rows.map((row, i) => ({
    x: [row.outcome.traffic_mb], y: [row.mean], mode: places[i] ? "markers+text" : "markers", text: [plain(row.group.name)], textposition: places[i] || "middle right", textfont: { size: 12, color: colours.ink }, cliponaxis: false,
    marker: { size: 10, symbol: row.style.symbol, color: row.style.color, line: { width: 1, color: colours.page } },
    error_y: { type: "data", symmetric: false, array: [Math.max(...row.outcome.seeds) - row.mean], arrayminus: [row.mean - Math.min(...row.outcome.seeds)], color: faded(row.style.color, 0.6), thickness: 1.5, width: 0, visible: row.outcome.seeds.length > 1 },
    hovertemplate: `<b>${plain(row.group.name)}</b> ${shown(row.mean)}<br>${shown(row.outcome.traffic_mb)} MB<extra></extra>`,
  }));
  layout.xaxis.title.text = "sent up and down by all clients (MB)";
  layout.xaxis.type = state.logTraffic ? "log" : "linear";
  layout.xaxis.range = [left, right];
  layout.yaxis.title.text = axisText(score);
  layout.yaxis.range = [low, high];
  const values = panel.groups.map((group) => (group.last[score?.key] ? mean(group.last[score.key].seeds) : null));
  return { traces, layout, text: spoken(score, "traffic", panel, values), isEmpty: !rows.length };
}

function trafficSpan(values, log) {
  const [low, high] = span(values, 0.12) ?? [0, 1];
  return log || low > 0.5 * high ? [low, high] : [Math.min(0, low), high];
}

/** How a label's bars look: a colour, hatched from the eleventh label on, grey for all others together. */
function labelFill(page, data, index, colours) {
  const isOther = data.has_other && index === data.labels.length - 1;
  const { color } = look(page, index, isDark());
  return { color: isOther ? colours.other : color, hatched: !isOther && index >= page.shades.length };
}

/** One bar for every client, stacked by label. */
function labelsChart(page, data, shards, colours) {
  const bar = Math.max(9, Math.min(26, 460 / shards.counts.length));
  const layout = baseLayout(colours, 52 + bar * shards.counts.length);
  const isNamed = shards.names.length > 0;
  const isSample = isNamed || shards.clients.at(-1) >= shards.clients.length;
  const clients = isNamed ? shards.names.map(plain) : isSample ? shards.clients.map(String) : shards.clients;
  const prefix = isNamed ? "" : "client ";
  const traces = data.labels
    .map((label, index) => ({ label, index, counts: shards.counts.map((row) => row[index]) }))
    .filter((part) => part.counts.some((count) => count > 0))
    .map((part) => {
      const fill = labelFill(page, data, part.index, colours);
      return {
        type: "bar", orientation: "h", x: part.counts, y: clients,
        marker: { color: fill.color, line: { width: 1, color: colours.page }, pattern: fill.hatched ? { shape: "/", bgcolor: fill.color, fgcolor: colours.page, fgopacity: 0.75, size: 6, solidity: 0.35 } : undefined },
        hovertemplate: `<b>${plain(part.label)}</b><br>%{x} rows of ${prefix}%{y}<extra></extra>`,
      };
    });
  Object.assign(layout, { barmode: "stack", bargap: 0.18 });
  layout.xaxis.title.text = "rows";
  layout.xaxis.nticks = 5;
  layout.yaxis = { ...layout.yaxis, type: isSample ? "category" : undefined, autorange: "reversed", showgrid: false, tickprefix: prefix, automargin: true, nticks: Math.min(shards.counts.length, 26), tickformat: isSample ? undefined : "d", dtick: shards.counts.length <= 26 ? 1 : undefined };
  const totals = shards.counts.map((row) => row.reduce((a, b) => a + b, 0));
  const text = `Rows of each client by label, ${shards.title}: ${totals.map((total, i) => `${prefix}${isNamed ? shards.names[i] : clients[i]} ${total}`).join(", ")}`;
  return { traces, layout, text, isEmpty: !traces.length };
}
