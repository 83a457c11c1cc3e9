// The table of runs: filter, columns, order, and which runs are compared. What the reader chose is in the address, so that it can be sent on.
const board = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const chosen = { ticked: new Set(), hidden: new Set(), order: null };
const STATES = ["finished", "running", "interrupted", "failed", "killed", "new"];

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function shownNumber(value, measured) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return value === "inf" ? "∞" : String(value);
  if (Number.isInteger(value) && !measured) return String(value);
  return Math.abs(value) >= 100 ? value.toFixed(1) : Math.abs(value) >= 10 ? value.toFixed(2) : Math.abs(value) >= 1e-3 ? value.toFixed(4) : value.toPrecision(3);
}

const settingsOf = (run) => run.settings.map((number) => board.settings[number]);
const settingOf = (run, name) => { const found = settingsOf(run).find((text) => text.startsWith(name + "=")); return found === undefined ? "" : found.slice(name.length + 1); };
const baselineOf = (run, name) => run.summary["bicubic_" + name] ?? run.summary["linear_" + name];

function columnsOfBoard() {
  const columns = [
    { name: "run", text: (run) => run.name, value: (run) => run.name + run.signature },
    { name: "task", text: (run) => run.task }, { name: "state", text: (run) => run.state },
    ...["scale", "seed", "trainer.steps", "degradation.kind", "sampler.kind", "metrics.protocol.name"].filter((name) => new Set(board.runs.map((run) => settingOf(run, name)).filter(Boolean)).size > 1)
      .map((name) => ({ name, title: name.replace("metrics.protocol.name", "protocol").replace("trainer.", "").replace(".kind", ""), text: (run) => settingOf(run, name), number: board.runs.every((run) => settingOf(run, name) === "" || !Number.isNaN(Number(settingOf(run, name)))) })),
  ];
  const figures = [...new Set(board.runs.flatMap((run) => Object.keys(run.summary)))].filter((name) => !/^(bicubic|linear)_/.test(name));
  for (const name of figures) {
    const metric = board.metrics[name];
    columns.push({ name, title: metric ? metric.title + { higher: " ↑", lower: " ↓" }[metric.direction] : name.replaceAll("_", " "), metric, number: board.runs.every((run) => typeof (run.summary[name] ?? 0) === "number" || run.summary[name] === "inf"), text: (run) => shownNumber(run.summary[name], metric), value: (run) => run.summary[name] ?? "" });
  }
  columns.push({ name: "updated", text: (run) => run.updated });
  columns.filter((column) => column.name === "task" && new Set(board.runs.map(column.text)).size < 2).forEach((column) => chosen.hidden.add(column.name));
  columns.filter((column) => column.metric).slice(6).forEach((column) => chosen.hidden.add(column.name));
  columns.filter((column) => board.runs.length > 1 && !column.metric && column.number && column.value).forEach((column) => chosen.hidden.add(column.name));
  return columns;
}

function matches(run) {
  const equal = (id, value) => !byId(id).value || byId(id).value === value;
  const sweep = byId("sweep").value;
  if (!equal("task", run.task) || !equal("state", run.state)) return false;
  if (sweep && !board.sweeps.find((each) => each.name === sweep).runs.includes(run.id)) return false;
  const settings = settingsOf(run), text = [run.id, run.state, run.command, run.error, run.host].join(" ").toLowerCase();
  return byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean).every((word) => word.includes("=")
    ? settings.some((setting) => setting.toLowerCase() === word || setting.toLowerCase().endsWith("." + word)) || text.split(" ").includes(word)
    : text.includes(word) || settings.some((setting) => setting.toLowerCase().includes(word)));
}

function cellOf(run, column) {
  const cell = element("td", column.text(run), { "data-value": (column.value ?? column.text)(run) });
  if (!column.number) cell.classList.add("text");
  if (column.name === "run") {
    cell.textContent = "";
    cell.append(run.report ? element("a", run.name, { href: encodeURI(run.report) }) : document.createTextNode(run.name), element("span", " " + run.signature, { class: "muted small" }));
    if (run.command) cell.title = run.command;
  }
  if (column.name === "updated") {
    const [day, time = ""] = run.updated.split(" ");
    cell.replaceChildren(day, element("span", " " + time, { class: "muted small" }));
  }
  if (column.name === "state") {
    cell.classList.add("state", run.state);
    if (run.error) cell.append(element("span", run.error, { class: "error", title: run.error }));
    if (run.state !== "finished" && run.log) cell.append(element("a", " log", { href: encodeURI(run.log), class: "small" }));
  }
  const baseline = column.metric ? baselineOf(run, column.name) : undefined;
  if (typeof baseline === "number" && typeof run.summary[column.name] === "number") {
    const gain = run.summary[column.name] - baseline, good = column.metric.direction === "higher" ? gain > 0 : gain < 0;
    cell.append(element("span", (gain >= 0 ? "+" : "−") + shownNumber(Math.abs(gain), true), { class: "gain " + (good ? "better" : "worse"), title: "difference from interpolation" }));
  }
  return cell;
}

function showTable() {
  const columns = board.columns.filter((column) => !chosen.hidden.has(column.name)), table = byId("table");
  const headings = element("tr");
  headings.append(element("th", "", { "data-kind": "text", class: "text" }), ...columns.map((column) => element("th", column.title ?? column.name, { "data-kind": column.number ? "number" : "text", "data-name": column.name, tabindex: "0", class: column.number ? "" : "text", title: column.metric ? column.metric.meaning : "" })));
  table.tHead.replaceChildren(headings);
  const shown = board.runs.filter(matches);
  table.tBodies[0].replaceChildren(...shown.map((run) => {
    const row = element("tr", "", { "data-run": run.id }), tick = element("input", "", { type: "checkbox", "aria-label": "Compare " + run.id });
    tick.checked = chosen.ticked.has(run.id);
    row.classList.toggle("ticked", tick.checked);
    tick.addEventListener("change", () => { chosen.ticked[tick.checked ? "add" : "delete"](run.id); row.classList.toggle("ticked", tick.checked); changed(); });
    const first = element("td", "", { "data-value": "" });
    first.append(tick);
    row.append(first, ...columns.map((column) => cellOf(run, column)));
    return row;
  }));
  startSorting(table);
  if (chosen.order) { const heading = [...headings.cells].find((each) => each.dataset.name === chosen.order.name); if (heading) { heading.click(); if (chosen.order.descending) heading.click(); } }
  headings.addEventListener("click", () => { const sorted = headings.querySelector("[aria-sort]"); chosen.order = { name: sorted.dataset.name, descending: sorted.getAttribute("aria-sort") === "descending" }; });
  byId("shown").textContent = `${shown.length} of ${board.runs.length} shown`;
}

function changed() {
  const kept = new URLSearchParams();
  for (const id of ["filter", "task", "state", "sweep"]) if (byId(id).value) kept.set(id, byId(id).value);
  if (chosen.ticked.size) kept.set("compare", [...chosen.ticked].join(","));
  history.replaceState(null, "", "#" + kept);
  showComparison(board.runs.filter((run) => chosen.ticked.has(run.id)));
}

function fillSelect(id, all, values, texts = values) {
  byId(id).replaceChildren(element("option", all, { value: "" }), ...values.map((value, index) => element("option", texts[index], { value })));
  byId(id).hidden = values.length < 2 && id !== "sweep" || values.length === 0;
  byId(id).addEventListener("change", () => { showTable(); changed(); });
}

function showSweeps() {
  byId("sweeps").hidden = !board.sweeps.length;
  byId("sweeps").querySelector("table").replaceChildren(...board.sweeps.map((sweep) => {
    const row = element("tr"), counts = element("td", STATES.concat("waiting", "deleted").filter((state) => sweep.counts[state]).map((state) => `${sweep.counts[state]} ${state}`).join(", ")), links = element("td");
    if (sweep.page) links.append(element("a", "page", { href: encodeURI(sweep.page) }), " ");
    const button = element("button", "show its runs", { type: "button", "data-sweep": sweep.name });
    button.addEventListener("click", () => { byId("sweep").value = sweep.name; showTable(); changed(); byId("runs").scrollIntoView(); });
    links.append(button);
    row.append(element("td", sweep.command), counts, links);
    return row;
  }));
  byId("tables").hidden = !board.tables.length;
  byId("tables").querySelector("ul").replaceChildren(...board.tables.map((table) => { const item = element("li"); item.append(element("a", table.name, { href: encodeURI(table.page) })); return item; }));
}

function startBoard() {
  board.columns = columnsOfBoard();
  fillSelect("task", "every task", [...new Set(board.runs.map((run) => run.task))]);
  fillSelect("state", "every state", STATES.filter((state) => board.runs.some((run) => run.state === state)));
  fillSelect("sweep", "every sweep", board.sweeps.map((sweep) => sweep.name), board.sweeps.map((sweep) => `sweep ${sweep.name}`));
  byId("counts").textContent = `${board.runs.length} runs: ` + STATES.map((state) => [board.runs.filter((run) => run.state === state).length, state]).filter(([count]) => count).map(([count, state]) => `${count} ${state}`).join(", ");
  byId("made").textContent = `Written ${board.made}; every run that ends renews it.` + (board.without_pictures ? ` Pictures of ${board.without_pictures} older runs are in their reports only.` : "");
  byId("columns").replaceChildren(...board.columns.slice(1).map((column) => {
    const label = element("label"), box = element("input", "", { type: "checkbox", "data-column": column.name });
    box.checked = !chosen.hidden.has(column.name);
    box.addEventListener("change", () => { chosen.hidden[box.checked ? "delete" : "add"](column.name); showTable(); });
    label.append(box, " " + (column.title ?? column.name));
    return label;
  }));
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const id of ["filter", "task", "state", "sweep"]) if (kept.has(id)) byId(id).value = kept.get(id);
  for (const id of (kept.get("compare") ?? "").split(",").filter(Boolean)) chosen.ticked.add(id);
  byId("filter").addEventListener("input", () => { showTable(); changed(); });
  byId("tick-all").addEventListener("click", () => { board.runs.filter(matches).forEach((run) => chosen.ticked.add(run.id)); showTable(); changed(); });
  byId("clear").addEventListener("click", () => { chosen.ticked.clear(); for (const id of ["filter", "task", "state", "sweep"]) byId(id).value = ""; showTable(); changed(); });
  for (const id of ["series", "image", "logarithmic", "all-settings"]) byId(id).addEventListener("change", changed);
  showSweeps();
  showTable();
  changed();
}
