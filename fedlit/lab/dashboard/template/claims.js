// Statistics over draws: differences from the best method, and shares of the variance.

const SOURCE_SLOTS = [3, 1, 4, 5, 7]; // looks of method, draw, both, seed, residual

/** Every method's difference from the best one, with its interval. */
function forestChart(forest, colours) {
  const layout = baseLayout(colours, 74 + 30 * forest.names.length);
  const styles = forest.slots.map((slot) => look(page, slot, isDark()));
  const names = forest.names.map(plain);
  const intervals = names.map((name, i) => ({
    x: [forest.lows[i], forest.highs[i]], y: [name, name], mode: "lines", hoverinfo: "skip",
    line: { color: faded(styles[i].color, 0.6), width: 4 }, visible: forest.lows[i] !== null,
  }));
  const means = {
    x: forest.means, y: names, mode: "markers", text: names.map((name, i) => `<b>${name}</b> ${forest.texts[i]}`), hovertemplate: "%{text}<extra></extra>",
    marker: { size: 10, symbol: styles.map((style) => style.symbol), color: styles.map((style) => style.color), line: { width: 1.5, color: colours.page } },
  };
  layout.shapes = [{ type: "line", x0: 0, x1: 0, y0: 0, y1: 1, yref: "paper", line: { color: colours.ink, width: 1 } }];
  layout.xaxis.range = span([0, ...forest.means, ...forest.lows, ...forest.highs].filter((value) => value !== null));
  layout.xaxis.nticks = 5;
  layout.xaxis.title.text = `minus ${plain(forest.best)}, ${forest.lower_is_better ? "below" : "above"} 0 is better`;
  Object.assign(layout.yaxis, { type: "category", categoryorder: "array", categoryarray: names, range: [names.length - 0.5, -0.5], dtick: 1, tickfont: { size: 12.5, color: colours.ink }, ticks: "" });
  const text = `${forest.title}, differences from ${forest.best}: ${forest.names.map((name, i) => `${name} ${forest.texts[i]}`).join("; ")}`;
  return { traces: [...intervals, means], layout, text, isEmpty: !names.length };
}

/** A bar for every score, stacked by source of variance. */
function sharesChart(bars, colours) {
  const layout = baseLayout(colours, 92 + 34 * bars.length);
  const sources = [...new Set(bars.flatMap((bar) => bar.sources))];
  const traces = sources.map((source, i) => {
    const parts = bars.map((bar) => bar.sources.indexOf(source));
    return {
      type: "bar", orientation: "h", name: source, y: bars.map((bar) => plain(bar.title)), x: bars.map((bar, j) => bar.shares[parts[j]] ?? 0),
      marker: { color: look(page, SOURCE_SLOTS[i % SOURCE_SLOTS.length], isDark()).color, line: { width: 1, color: colours.page } },
      text: bars.map((bar, j) => bar.texts[parts[j]] ?? ""), textposition: "none", hovertemplate: `<b>${plain(source)}</b> %{text}<extra></extra>`,
    };
  });
  Object.assign(layout, { barmode: "stack", bargap: 0.3, showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal", font: { size: 12, color: colours.ink } } });
  layout.margin.t = 34;
  layout.xaxis.range = [0, 1];
  layout.xaxis.tickformat = ".0%";
  layout.xaxis.title.text = "share of the variance";
  layout.yaxis = { ...layout.yaxis, autorange: "reversed", showgrid: false, type: "category", tickfont: { size: 12.5, color: colours.ink }, dtick: 1, ticks: "" };
  const text = `Shares of the variance: ${bars.map((bar) => `${bar.title}: ${bar.sources.map((source, i) => `${source} ${bar.texts[i]}`).join(", ")}`).join("; ")}`;
  return { traces, layout, text, isEmpty: !bars.length };
}

function buildClaims(colours) {
  const section = document.getElementById("statistics");
  if (!section) return;
  const { forests, bars } = page.claims;
  section.querySelectorAll("[data-forest]").forEach((box, i) => {
    box.style.minHeight = `${74 + 30 * forests[i].names.length}px`;
    queue.push({ box, make: () => forestChart(forests[i], colours), file: `${page.name}-differences-${forests[i].title}` });
  });
  const box = section.querySelector("[data-shares]");
  if (!box) return;
  box.style.minHeight = `${92 + 34 * bars.length}px`;
  queue.push({ box, make: () => sharesChart(bars, colours), file: `${page.name}-shares` });
}
