// Sort a table by a column that is pressed; without this the tables stand as they are written.
for (const head of document.querySelectorAll("th")) {
  if (!head.textContent) continue;
  const button = document.createElement("button");
  button.className = "sort";
  button.textContent = head.textContent;
  head.replaceChildren(button);
  let up = false;
  button.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0], at = head.cellIndex;
    const text = row => row.cells[at].textContent.replaceAll(",", "");
    up = !up;
    const rows = [...body.rows].sort((a, b) => {
      const x = parseFloat(text(a)), y = parseFloat(text(b));
      const order = isNaN(x) || isNaN(y) ? text(a).localeCompare(text(b)) : x - y;
      return up ? order : -order;
    });
    body.append(...rows);
  });
}
