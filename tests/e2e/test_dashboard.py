"""The dashboard command, and its page in a real browser: all is drawn, every control works, no error, no overflow."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, environment
from synthetic_runs import collection, write_folders

from fedlit.lab.dashboard.page import write_page

SCRIPT = REPOSITORY / "experiments" / "dashboard.py"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --mute-audio --hide-scrollbars "
    "--disable-dev-shm-usage --virtual-time-budget=60000"
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')

# Uses every control as a reader would (inside a frame, not every choice), waits for the charts each time, and writes
# what it saw to the root element.
EXERCISE = """
<script>
(async () => {
  const root = document.documentElement;
  const drawn = async () => { while (!root.dataset.drawn) await new Promise((go) => setTimeout(go, 10)); };
  const charts = (id) => [...document.querySelectorAll(`#${id} .js-plotly-plot`)];
  const traces = (chart) => chart.data.filter((trace) => trace.name).map((trace) => [trace.name, trace.x, trace.y]);
  const lines = () => charts("curves").map(traces);
  const choose = async (id, value) => {
    const select = document.getElementById(id);
    select.value = value;
    select.dispatchEvent(new Event("change"));
    await drawn();
  };
  const tick = async (id) => { document.getElementById(id).click(); await drawn(); };
  const rows = (table) => [...document.querySelectorAll(`${table} tbody tr`)];
  const column = (table, i) => rows(table).map((row) => row.cells[i].textContent.trim());
  await drawn();
  const seen = { lines: lines(), charts: root.dataset.drawn };
  for (const id of parent === window ? ["score", "axis", "pick", "colour"] : [])
    for (const option of [...document.getElementById(id).options].reverse()) {
      await choose(id, option.value);
      seen[`${id} ${option.value}`] = charts("curves").length;
    }
  for (const id of ["log-x", "log-x", "log-traffic", "log-traffic", "theme", "theme"]) await tick(id);
  seen.themes = [root.dataset.theme, getComputedStyle(document.body).backgroundColor];
  document.querySelector("#legend button").click();
  await drawn();
  seen.hidden = [lines(), document.querySelector("#legend button").getAttribute("aria-pressed")];
  document.querySelector("#legend button").click();
  await drawn();
  seen.again = lines();
  document.querySelector("#labels .more")?.click();
  await drawn();
  seen.partitions = charts("labels").length;
  document.querySelectorAll("#runs thead button")[0].click();
  seen.ascending = column("#runs", 0);
  document.querySelectorAll("#runs thead button")[0].click();
  seen.descending = column("#runs", 0);
  document.querySelectorAll("thead button").forEach((button) => button.click());
  document.getElementById("unfinished").click();
  seen.unfinished = rows("#runs").filter((row) => !row.hidden).length;
  window.dispatchEvent(new Event("beforeprint"));
  window.dispatchEvent(new Event("afterprint"));
  seen.labels = [...document.querySelectorAll(".chart")].filter((chart) => !chart.getAttribute("aria-label")).length;
  seen.overflow = root.scrollWidth - innerWidth;
  seen.width = innerWidth;
  seen.errors = root.dataset.errors;
  root.dataset.seen = JSON.stringify(seen);
  parent.postMessage(seen, "*");
})();
</script>
"""

FRAMES = """<!DOCTYPE html><title>frames</title><script>
const all = [];
addEventListener("message", (event) => {
  all.push(event.data);
  document.documentElement.dataset.seen = JSON.stringify(all);
});
</script>
"""


@pytest.fixture(scope="session")
def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    return found


class Root(HTMLParser):
    """Keeps the attributes of the first element."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: dict[str, str | None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "html":
            self.attributes = dict(attrs)


def open_page(browser: str, page: Path, folder: Path, scheme: str = "light") -> dict[str, str | None]:
    """Open a file and return the attributes of its root element when nothing more happens."""
    dark = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    words = [browser, *FLAGS.split(), dark, f"--user-data-dir={folder}", "--window-size=1280,1000", "--dump-dom"]
    done = subprocess.run([*words, page.as_uri()], capture_output=True, text=True, check=True, timeout=240)
    root = Root()
    root.feed(done.stdout[:200_000])
    return root.attributes


def dashboard(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def exercised(page: Path) -> Path:
    """Return the page with a script that uses its controls, which its policy would not let run."""
    path = page.with_name(f"exercised-{page.name}")
    html, num = POLICY.subn("", page.read_text(encoding="utf-8"))
    assert num == 1
    path.write_text(html.replace("</body>", f"{EXERCISE}</body>"), encoding="utf-8")
    return path


def test_the_command_writes_a_page_that_draws_under_its_own_policy(tmp_path: Path, browser: str) -> None:
    made = collection(tmp_path / "runs" / "demo", num_seeds=2, states={5: "failed"})
    write_folders(made)
    done = dashboard(tmp_path, "runs/demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "runs/demo/dashboard.html\n"
    root = open_page(browser, tmp_path / "runs" / "demo" / "dashboard.html", tmp_path / "profile", "dark")
    assert root["data-errors"] == "0"
    assert root["data-drawn"] == "8"  # three charts, a partition for each seed, and three of statistics


def test_every_control_works_and_the_lines_are_the_means(tmp_path: Path, browser: str) -> None:
    made = collection(tmp_path / "demo", num_clients=(4, 8), states={1: "running", 7: "pending"})
    write_page(made, tmp_path / "page.html")
    seen = json.loads(str(open_page(browser, exercised(tmp_path / "page.html"), tmp_path / "profile")["data-seen"]))
    assert seen["errors"] == "0"
    runs = {run.name: [record["global/rouge_l"] for record in run.records] for run in made.entries}
    for panel, num_clients in zip(seen["lines"], (4, 8), strict=True):
        for method in ("fedit", "ffa_lora", "fedex_lora"):
            values = [runs[f"medquad-{num_clients}-{method}-{seed}"] for seed in (0, 1)]
            assert drawn_values(panel, method) == pytest.approx(means(values), rel=1e-5)
    assert seen["again"] == seen["lines"]
    panels, pressed = seen["hidden"]
    assert pressed == "false"
    assert [{name for name, *_ in panel} for panel in panels] == [{"ffa_lora", "fedex_lora"}] * 2
    assert (seen["colour 0"], seen["colour 1"]) == (2, 3)  # lines are methods, or numbers of clients
    assert seen["themes"] == ["dark", "rgb(21, 23, 27)"]
    assert seen["ascending"] == sorted(seen["ascending"])
    assert seen["descending"] == seen["ascending"][::-1]
    assert (seen["unfinished"], seen["partitions"], seen["labels"]) == (2, 4, 0)


def drawn_values(panel: list[list[Any]], method: str) -> list[float]:
    """Return a method's line, its thin end after it."""
    return [y for name, _, ys in panel if name == method for y in ys]


def means(values: list[list[float]]) -> list[float]:
    """Return the mean of the seeds at every round that any has reached."""
    longest = max(map(len, values))
    return [float(np.mean([seed[i] for seed in values if len(seed) > i])) for i in range(longest)]


def test_no_width_overflows(tmp_path: Path, browser: str) -> None:
    methods = ("fedit", "a_method_with_quite_a_long_name", "another")
    write_page(collection(tmp_path / "demo", methods=methods, states={1: "failed"}), tmp_path / "page.html")
    source = exercised(tmp_path / "page.html").name
    frames = [f'<iframe src="{source}" style="width: {width}px; height: 800px"></iframe>' for width in (390, 1600)]
    (tmp_path / "frames.html").write_text(FRAMES + "".join(frames), encoding="utf-8")
    seen = json.loads(str(open_page(browser, tmp_path / "frames.html", tmp_path / "profile")["data-seen"]))
    assert sorted((one["width"], one["errors"]) for one in seen) == [(390, "0"), (1600, "0")]
    assert [one["overflow"] for one in seen] == [0, 0]


@pytest.mark.slow
def test_200_runs_are_drawn(tmp_path: Path, browser: str) -> None:
    datas, methods = [f"data{i}" for i in range(5)], [f"method{i}" for i in range(10)]
    made = collection(tmp_path, datas=datas, methods=methods, num_clients=(4, 16), num_rounds=50)
    write_page(made, tmp_path / "page.html")
    root = open_page(browser, tmp_path / "page.html", tmp_path / "profile")
    assert (root["data-errors"], root["data-drawn"]) == ("0", "50")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["scl_tabel2"], "did you mean 'scl_table2'?"),
        (["demo", "--ouput=x"], "did you mean '--output'?"),
        (["seed=0"], "names no runs"),
        (["demo", "--entity=x"], "belongs to --wandb"),
        (["demo", "--output=."], "is a folder"),
        (["."], "holds no run"),
        ([], "no runs are named"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    done = dashboard(tmp_path, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")
    assert said in done.stderr


def test_a_sweep_without_a_run_has_a_page_too(tmp_path: Path) -> None:
    done = dashboard(tmp_path, "demo", "seed=0", "--output=page.html")
    assert (done.returncode, done.stdout) == (0, "page.html\n")
    assert "No run has finished a round yet" in (tmp_path / "page.html").read_text(encoding="utf-8")
