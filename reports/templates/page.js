"use strict";
// Sorting: a click on a heading orders the rows by that column; reference rows stay last. Cells without a number go last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  headings.forEach((heading, index) => heading.querySelector("button").addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => {
      const cell = row.cells[index];
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    };
    const order = (a, b) => {
      if (a.classList.contains("reference") !== b.classList.contains("reference")) return a.classList.contains("reference") ? 1 : -1;
      const [x, y] = [key(a), key(b)];
      if (x !== null && y !== null) return down ? y - x : x - y;
      if (x !== null || y !== null) return x === null ? 1 : -1;
      const [s, t] = [a.cells[index].textContent, b.cells[index].textContent];
      return down ? t.localeCompare(s) : s.localeCompare(t);
    };
    body.append(...[...body.rows].sort(order));
  }));
}
// Copying: the text lies in a hidden field beside the button.
for (const button of document.querySelectorAll(".copy button")) {
  button.addEventListener("click", async () => {
    const field = button.parentElement.querySelector(`textarea[name="${button.name}"]`);
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(field.value);
    } catch (_) {
      field.style.display = "block";
      field.select();
      document.execCommand("copy");
      field.style.display = "";
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1200);
  });
}
