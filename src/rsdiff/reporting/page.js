// What the pages share: the divider between two pictures, and tables sorted by a click on a heading.
function startDivider(box, range) {
  const move = (percent) => { const at = Math.min(100, Math.max(0, percent)); box.style.setProperty("--at", at + "%"); range.value = at; };
  const follow = (event) => { const frame = box.getBoundingClientRect(); move(100 * (event.clientX - frame.left) / frame.width); };
  box.addEventListener("pointerdown", (event) => { box.setPointerCapture(event.pointerId); follow(event); });
  box.addEventListener("pointermove", (event) => { if (event.buttons || event.pointerType === "mouse") follow(event); });
  range.addEventListener("input", () => move(Number(range.value)));
  move(50);
}

function startSorting(table) {
  const headings = [...table.querySelectorAll("th")], body = table.tBodies[0];
  const sort = (index) => {
    const heading = headings[index], descending = heading.getAttribute("aria-sort") === "ascending";
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => { const text = row.cells[index].dataset.value; if (heading.dataset.kind !== "number") return text; const value = text === "inf" ? Infinity : parseFloat(text); return Number.isNaN(value) ? -Infinity : value; };
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1));
    body.append(...rows.map(([, row]) => row));
  };
  headings.forEach((heading, index) => { heading.addEventListener("click", () => sort(index)); heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(index); }); });
}
