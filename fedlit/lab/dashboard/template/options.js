// In what the configurations of two runs differ.

function fillOptions() {
  const { runs, keys, values } = page.options;
  const section = document.getElementById("options");
  if (!section) return;
  // Of two seeds of one setting there would be nothing to read.
  const other = runs.findIndex((_, run) => keys.some((key, i) => !["seed", "partition.seed"].includes(key) && values[i][run] !== values[i][0]));
  const chosen = { first: 0, second: other < 0 ? runs.length - 1 : other };
  const show = () => {
    const rows = keys
      .map((key, i) => [key, values[i][chosen.first], values[i][chosen.second]])
      .filter(([, first, second]) => first !== second);
    section.querySelector("[data-first]").textContent = runs[chosen.first];
    section.querySelector("[data-second]").textContent = runs[chosen.second];
    section.querySelector("tbody").replaceChildren(
      ...rows.map(([key, first, second]) => element("tr", {}, element("th", { scope: "row" }, key), element("td", {}, first), element("td", {}, second))),
    );
    section.querySelector("[data-caption]").textContent = rows.length
      ? "Options that determine the result and are not the same in both runs."
      : "No option that determines the result differs between these two runs.";
  };
  for (const [id, name] of [["option-first", "first"], ["option-second", "second"]]) {
    fillSelect(id, runs.map((run, i) => [i, run]), (value) => {
      chosen[name] = Number(value);
      show();
    }, chosen[name]);
  }
  show();
}
