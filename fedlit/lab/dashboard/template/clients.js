// One run's clients, a line each.

const clientState = { run: 0, score: 0 };

/** The lines of one score of every client of a run. */
function clientsChart(page, run, score, colours) {
  const layout = baseLayout(colours, 380);
  const marked = run.rounds.length <= 25;
  const traces = score.lines.map((line, i) => {
    const style = look(page, i, isDark());
    return {
      x: run.rounds, y: line, name: plain(run.names[i]), mode: marked ? "lines+markers" : "lines", connectgaps: true,
      line: { color: style.color, width: 1.6, dash: style.dash }, marker: { size: 4.5, color: style.color },
      hovertemplate: `<b>${plain(run.names[i])}</b> %{y:.4~g}<extra></extra>`,
    };
  });
  layout.showlegend = true;
  layout.legend = { orientation: "h", y: -0.22, font: { size: 11.5, color: colours.ink } };
  layout.margin = { ...layout.margin, b: 40 };
  layout.xaxis.title.text = "round";
  layout.xaxis.range = span(run.rounds);
  layout.xaxis.dtick = wholeStep(layout.xaxis.range);
  layout.yaxis.title.text = axisText(score);
  layout.hovermode = "closest";
  const ends = score.lines.map((line, i) => `${run.names[i]} ${shown(line.findLast((value) => value !== null))}`);
  return { traces, layout, text: `${score.heading} of each client of ${run.run}: ${ends.join(", ")}`, isEmpty: !traces.length };
}

function buildClients(colours) {
  const section = document.getElementById("clients");
  if (!section) return;
  const run = page.clients[clientState.run];
  const score = run.scores[clientState.score];
  const box = section.querySelector(".chart");
  box.style.minHeight = "380px";
  const more = run.num_clients > run.names.length ? ` The first ${run.names.length} of ${run.num_clients} clients are drawn.` : "";
  section.querySelector("[data-caption]").textContent = `${score.heading} of each client of ${run.run} over the rounds.${more}`;
  queue.push({ box, make: () => clientsChart(page, run, score, colours), file: `${page.name}-clients-${run.run}` });
}

function fillClients() {
  if (!page.clients.length) return;
  const scores = document.getElementById("client-score");
  const show = (part) => {
    Object.assign(clientState, part);
    const found = page.clients[clientState.run].scores;
    clientState.score = Math.min(clientState.score, found.length - 1);
    setOptions(scores, found.map((score, i) => [i, score.heading]), clientState.score);
    if (!("start" in part)) {
      buildClients(pageColours());
      startQueue();
    }
  };
  fillSelect("client-run", page.clients.map((run, i) => [i, run.run]), (value) => show({ run: Number(value) }));
  scores.addEventListener("change", () => show({ score: Number(scores.value) }));
  show({ start: true });
}
