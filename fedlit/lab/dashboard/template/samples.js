// Answers of one run, or of two side by side, to the same examples.

const NO_RUN = -1;

function fillSamples() {
  const section = document.getElementById("samples");
  if (!section) return;
  const { examples, runs, left_out } = page.samples;
  const chosen = { first: 0, second: NO_RUN, round: null };
  const rounds = document.getElementById("sample-round");
  const answersOf = (index) => {
    const run = runs[index];
    const place = run ? run.rounds.indexOf(chosen.round) : -1;
    return place < 0 ? [] : run.answers[place];
  };
  const cell = (text, answer) => {
    const made = element("td", { class: "text" }, text);
    if (answer && answer.client !== null) made.append(element("span", { class: "whose" }, ` client ${answer.client}`));
    return made;
  };
  const show = () => {
    const [first, second] = [answersOf(chosen.first), answersOf(chosen.second)];
    const compared = chosen.second !== NO_RUN;
    const asked = [...new Set([...first, ...second].map((answer) => answer.example))];
    const heads = ["set", "prompt", "reference", runs[chosen.first].name, ...(compared ? [runs[chosen.second].name] : [])];
    const rows = asked.map((example) => {
      const { set_name, prompt, references } = examples[example];
      const answers = [first, ...(compared ? [second] : [])].map((all) => all.find((answer) => answer.example === example));
      return element("tr", {}, element("td", {}, set_name), cell(prompt), cell(references.join("\n")), ...answers.map((answer) => (answer ? cell(answer.text, answer) : cell("–"))));
    });
    section.querySelector("thead").replaceChildren(element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head))));
    section.querySelector("tbody").replaceChildren(...rows);
    const missing = compared && !second.length ? ` ${runs[chosen.second].name} has no answers of this round here.` : "";
    const cut = left_out ? ` ${left_out} more runs are left out, to keep the page small.` : "";
    section.querySelector("[data-caption]").textContent = `Answers after round ${chosen.round}, the same examples in every round.${missing}${cut}`;
  };
  const fillRounds = () => {
    const known = [...new Set([...runs[chosen.first].rounds, ...(runs[chosen.second]?.rounds ?? [])])].sort((a, b) => a - b);
    if (!known.includes(chosen.round)) chosen.round = runs[chosen.first].rounds.at(-1);
    rounds.replaceChildren(...known.map((round) => element("option", { value: round, ...(round === chosen.round ? { selected: "" } : {}) }, String(round))));
    rounds.value = String(chosen.round);
    show();
  };
  const names = runs.map((run, i) => [i, run.name]);
  fillSelect("sample-first", names, (value) => { chosen.first = Number(value); fillRounds(); });
  fillSelect("sample-second", [[NO_RUN, "no other"], ...names], (value) => { chosen.second = Number(value); fillRounds(); });
  rounds.addEventListener("change", () => { chosen.round = Number(rounds.value); show(); });
  fillRounds();
}

fillSamples();
