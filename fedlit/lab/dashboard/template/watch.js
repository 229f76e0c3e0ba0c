"use strict";
// Before anything is painted: count what goes wrong, and take up the reader's colour scheme.
window.addEventListener("error", () => {
  const root = document.documentElement;
  root.dataset.errors = String(Number(root.dataset.errors) + 1);
  const note = document.getElementById("trouble");
  if (note) note.hidden = false;
});
function storedTheme() {
  try {
    return localStorage.getItem("fedlit-theme");
  } catch {
    return null; // a page from disk may be denied storage
  }
}
if (["light", "dark"].includes(storedTheme())) document.documentElement.dataset.theme = storedTheme();
window.addEventListener("unhandledrejection", (event) => window.dispatchEvent(new ErrorEvent("error", { message: String(event.reason) })));
