"use strict";
// Sorting and filtering of tables, reading plots with the arrow keys. The page is complete without it.
(() => {
  const value = (row, column) => {
    const cell = row.cells[column];
    if ("v" in cell.dataset) return cell.dataset.v === "" ? NaN : Number(cell.dataset.v);
    // "-0.5 → 0.1" and "3/16" go by what comes first.
    const first = /^(-?\d[\d,]*\.?\d*(?:e-?\d+)?) ?(?:→|…|\/|%|$)/.exec(cell.textContent);
    return first ? Number(first[1].replaceAll(",", "")) : cell.textContent;
  };
  const collator = new Intl.Collator("en", { numeric: true });
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number")
      return Number.isNaN(a) ? (Number.isNaN(b) ? 0 : 1) : Number.isNaN(b) ? -1 : a - b;
    return collator.compare(String(a), String(b));
  };
  const sortable = (table) => {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (head.tagName !== "TH") return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [value(row, column), row]);
        // What is no number stays at the end, whichever way.
        rows.sort(([a], [b]) => (down && !Number.isNaN(a) && !Number.isNaN(b) ? compare(b, a) : compare(a, b)));
        // Out of the page while it changes: a row at a time would be laid out ten thousand times.
        body.remove();
        body.replaceChildren(...rows.map(([, row]) => row));
        table.append(body);
      });
    });
  };
  const filtered = (table, number) => {
    const rows = [...table.tBodies[0].rows].map((row) => [row.textContent.toLowerCase(), row]);
    const box = document.createElement("div");
    box.className = "filter";
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("span");
    input.type = "search";
    input.id = `filter-${number}`;
    label.htmlFor = input.id;
    label.textContent = "Filter rows";
    count.setAttribute("role", "status");
    count.className = "note";
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [text, row] of rows) {
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
    };
    input.addEventListener("input", apply);
    apply();
    box.append(label, input, count);
    table.parentElement.before(box);
  };
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("table.filtered").forEach(filtered);

  document.querySelectorAll(".plot").forEach((plot) => {
    const marks = [...plot.querySelectorAll(".mark")];
    const readout = plot.querySelector(".readout");
    const area = plot.querySelector(".scroll");
    if (!marks.length || !readout || !area) return;
    readout.textContent = "";
    let at = -1;
    const show = (next) => {
      if (marks[at]) marks[at].classList.remove("on");
      at = next;
      marks[at].classList.add("on");
      readout.textContent = marks[at].querySelector("title").textContent;
    };
    marks.forEach((mark, number) => mark.addEventListener("pointerenter", () => show(number)));
    area.addEventListener("keydown", (event) => {
      const last = marks.length - 1;
      const next = {
        ArrowRight: Math.min(at + 1, last),
        ArrowLeft: Math.max(at - 1, 0),
        Home: 0,
        End: last,
      }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      show(next);
      marks[next].scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  });

  // Paper has nothing to fold out.
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((section) => { section.open = true; });
  });
})();
