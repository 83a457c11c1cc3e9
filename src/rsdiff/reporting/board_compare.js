// The comparison of ticked runs: curves over each other, results, pictures side by side, settings.
const COLOURS = ["#0b6fa4", "#c9702b", "#3c7d4e", "#7a4fa3", "#b0304f", "#4d8f8b", "#8a6d1f", "#5c6670"];
const SVG = "http://www.w3.org/2000/svg", WIDTH = 1100, HEIGHT = 340, LEFT = 64, BOTTOM = 30, TOP = 12, RIGHT = 14;

function svg(tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

// Each run by what sets it apart from the others, else by its name and signature.
function labelsOf(runs) {
  const names = differing(runs).filter((name) => !/^(outputs|task\.kind)$/.test(name));
  const alike = new Set(runs.map((run) => run.name)).size === 1;
  return runs.map((run) => { const parts = names.slice(0, 4).map((name) => `${name.split(".").slice(-2).join(".")}=${settingOf(run, name)}`); return (alike && parts.length ? "" : `${run.name} `) + (parts.length && runs.length > 1 ? parts.join(", ") : run.signature); });
}

function differing(runs) {
  const maps = runs.map((run) => new Map(settingsOf(run).map((text) => [text.slice(0, text.indexOf("=")), text])));
  const names = [...new Set(maps.flatMap((map) => [...map.keys()]))];
  return names.filter((name) => new Set(maps.map((map) => map.get(name))).size > 1).sort();
}

function refill(id, values) {
  const before = byId(id).value;
  byId(id).replaceChildren(...values.map((value) => element("option", value, { value })));
  if (values.includes(before)) byId(id).value = before;
}

function showComparison(runs) {
  byId("compare").hidden = !runs.length;
  if (!runs.length) return;
  const labels = labelsOf(runs);
  byId("compared").textContent = runs.length === 1 ? "one run" : `${runs.length} runs`;
  byId("legend").replaceChildren(...labels.map((label, index) => { const part = element("span"); part.append(element("i", "", { class: "swatch", style: `background:${COLOURS[index % COLOURS.length]}` }), label); return part; }));
  const series = [...new Set(runs.flatMap((run) => Object.keys(run.series)))];
  refill("series", [...series.filter((name) => /psnr|total/.test(name)), ...series.filter((name) => !/psnr|total/.test(name))]);
  byId("curves").hidden = !series.length;
  showCurves(runs, labels, byId("series").value);
  refill("image", [...new Set(runs.flatMap((run) => Object.keys(run.pictures)))]);
  byId("pictures").hidden = !byId("image").value;
  showPictures(runs, labels, byId("image").value);
  showResults(runs, labels);
  showSettings(runs, labels);
}

function table(place, headings, rows) {
  const head = element("thead"), first = element("tr"), body = element("tbody");
  first.append(...headings.map((text) => element("th", text)));
  head.append(first);
  body.append(...rows.map((cells) => { const row = element("tr"); row.append(...cells.map(([text, kind]) => element("td", text, kind ? { class: kind } : {}))); return row; }));
  byId(place).querySelector("table").replaceChildren(head, body);
}

function showResults(runs, labels) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.summary)))];
  byId("results").hidden = !names.length;
  table("results", ["", ...labels], names.map((name) => {
    const metric = board.metrics[name], values = runs.map((run) => run.summary[name]).filter((value) => typeof value === "number");
    const best = metric && runs.length > 1 ? { higher: Math.max(...values), lower: Math.min(...values) }[metric.direction] : undefined;
    return [[metric ? metric.title + (metric.unit ? ` (${metric.unit})` : "") : name.replaceAll("_", " "), ""], ...runs.map((run) => [shownNumber(run.summary[name], metric), run.summary[name] === best && best !== undefined ? "best" : ""])];
  }));
}

function showSettings(runs, labels) {
  const every = [...new Set(runs.flatMap((run) => settingsOf(run).map((text) => text.slice(0, text.indexOf("=")))))].sort();
  const names = byId("all-settings").checked || runs.length === 1 ? every : differing(runs);
  table("settings", ["", ...labels], names.map((name) => [[name, ""], ...runs.map((run) => [settingOf(run, name), ""])]));
}

function showPictures(runs, labels, image) {
  const first = runs.find((run) => run.pictures[image]), tiles = [];
  const tile = (number, text) => { const figure = element("figure", "", { class: "tile" }), frame = element("div", "", { class: "frame" }); frame.append(element("img", "", { src: board.pictures[number], alt: text })); figure.append(frame, element("figcaption", text)); tiles.push(figure); };
  if (first) {
    const inputs = new Set(runs.filter((run) => run.pictures[image]).map((run) => run.pictures[image].lr)).size;
    for (const [kind, text] of [["lr", "input"], ["bicubic", "bicubic"], ["hr", "reference"]]) if (first.pictures[image][kind] !== undefined && (kind === "hr" || inputs === 1)) tile(first.pictures[image][kind], text);
  }
  runs.forEach((run, index) => { if (run.pictures[image]?.sr !== undefined) tile(run.pictures[image].sr, labels[index]); });
  byId("tiles").replaceChildren(...tiles);
  byId("tiles").onpointermove = (event) => {
    const frame = event.target.closest(".frame");
    byId("tiles").classList.toggle("near", frame !== null);
    if (frame === null) return;
    const box = frame.getBoundingClientRect();
    byId("tiles").style.setProperty("--x", `${100 * (event.clientX - box.left) / box.width}%`);
    byId("tiles").style.setProperty("--y", `${100 * (event.clientY - box.top) / box.height}%`);
  };
  byId("tiles").onpointerleave = () => byId("tiles").classList.remove("near");
}

// Round values that divide a range into about `count` parts.
function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find((each) => each * power >= raw) * power;
  const marks = [];
  for (let mark = Math.ceil(low / step) * step; mark <= high + step * 1e-6; mark += step) marks.push(Math.abs(mark) < step * 1e-6 ? 0 : mark);
  return marks;
}

function showCurves(runs, labels, name) {
  const logarithmic = byId("logarithmic").checked, scaled = (value) => logarithmic ? Math.log10(value) : value;
  const lines = runs.map((run, index) => ({ index, points: (run.series[name]?.[0] ?? []).map((step, at) => [step, run.series[name][1][at]]).filter(([, value]) => typeof value === "number" && (!logarithmic || value > 0)) }));
  const points = lines.flatMap((line) => line.points), picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": name });
  byId("plot").replaceChildren(picture);
  byId("reading").textContent = "";
  if (!points.length) return;
  const range = (values) => { const low = Math.min(...values), high = Math.max(...values), more = low === high ? Math.abs(low) * 0.05 || 1 : 0; return [low - more, high + more]; };
  const [left, right] = range(points.map(([step]) => step)), [low, high] = range(points.map(([, value]) => scaled(value)));
  const x = (step) => LEFT + (step - left) / (right - left) * (WIDTH - LEFT - RIGHT), y = (value) => HEIGHT - BOTTOM - (scaled(value) - low) / (high - low) * (HEIGHT - BOTTOM - TOP);
  for (const mark of ticks(low, high, 5)) {
    const value = logarithmic ? 10 ** mark : mark;
    picture.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), stroke: "var(--line)" }), svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, String(Number(value.toPrecision(4)))));
  }
  for (const mark of ticks(left, right, 8)) picture.append(svg("text", { x: x(mark), y: HEIGHT - 10, "text-anchor": "middle" }, String(Number(mark.toPrecision(6)))));
  picture.append(svg("text", { x: LEFT - 8, y: HEIGHT - 10, "text-anchor": "end" }, "step"));
  for (const line of lines) {
    const colour = COLOURS[line.index % COLOURS.length], at = line.points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`);
    if (at.length) picture.append(svg("polyline", { points: at.join(" "), fill: "none", stroke: colour, "stroke-width": 2, "data-run": runs[line.index].id }));
    if (at.length < 12) at.forEach((place) => picture.append(svg("circle", { cx: place.split(",")[0], cy: place.split(",")[1], r: 3, fill: colour })));
  }
  const cursor = svg("line", { y1: TOP, y2: HEIGHT - BOTTOM, stroke: "var(--muted)", "stroke-dasharray": "3 3", visibility: "hidden" });
  picture.append(cursor);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect(), wanted = left + ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) * (right - left);
    const nearest = (list) => list.reduce((best, point) => Math.abs(point[0] - wanted) < Math.abs(best[0] - wanted) ? point : best);
    const read = lines.filter((line) => line.points.length).map((line) => [labels[line.index], nearest(line.points)]);
    cursor.setAttribute("x1", x(read[0][1][0])); cursor.setAttribute("x2", x(read[0][1][0])); cursor.setAttribute("visibility", "visible");
    byId("reading").textContent = read.map(([label, [step, value]]) => `${label}: ${shownNumber(value, true)} at ${step}`).join(" · ");
  });
}
