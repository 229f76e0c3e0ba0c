// Tables that sort by a click on a head, and the list of runs.

/** The number a cell begins with, NaN if it is a text. */
function leadingNumber(text) {
  const found = text.replace(/[−–]/g, "-").replace(/,(?=\d{3})/g, "").match(/^[^\w.-]*(-?\d*\.?\d+(?:e[+-]?\d+)?)/i);
  return found ? Number(found[1]) : NaN;
}

function compareCells(a, b) {
  const [x, y] = [leadingNumber(a), leadingNumber(b)];
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return Number.isNaN(x) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
}

function makeSortable(table) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const text = (row) => row.cells[column].textContent.trim();
      const isBlank = (row) => /^[–-]?$/.test(text(row));
      const rows = [...table.tBodies[0].rows].sort((a, b) => isBlank(a) - isBlank(b) || (ascending ? 1 : -1) * compareCells(text(a), text(b)));
      table.tBodies[0].append(...rows);
    });
  });
}

function buildRunFilter() {
  const rows = [...document.querySelectorAll("#runs tbody tr")];
  document.getElementById("run-filter").hidden = rows.every((row) => row.dataset.state === "done");
  document.getElementById("unfinished").addEventListener("change", (event) => {
    for (const row of rows) row.hidden = event.target.checked && row.dataset.state === "done";
  });
}
