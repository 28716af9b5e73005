"use strict";
// The search and the filter over the page's tables, and what opens where a link or a plot leads.
const byId = id => document.getElementById(id), all = (selector, root = document) => [...root.querySelectorAll(selector)];
const find = byId("find"), verdict = byId("verdict");

// a table with its part of the page; rows are read when they are first searched
const searched = all("table.searched").map(table => ({
  table, section: table.closest("section"), details: table.closest("details"), counter: table.closest("details")?.querySelector(".count"),
  columns: Object.fromEntries([...table.tHead.rows[0].cells].map((head, index) => [head.dataset.column, index])),
  rows: [...table.tBodies[0].rows], texts: null,
}));
const known = new Set(searched.flatMap(({columns}) => Object.keys(columns)));
const rowsInAll = searched.reduce((sum, {rows}) => sum + rows.length, 0);

const textOf = cell => cell.textContent.trim().toLowerCase();

// whether a row has a word: anywhere, or as column:value just that value in the column
function has(part, index, word) {
  const [column, ...rest] = word.split(":");
  if (!rest.length || !known.has(column)) return part.texts[index].includes(word);
  const place = part.columns[column];
  return place !== undefined && textOf(part.rows[index].cells[place]) === rest.join(":");
}

function search() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean), wanted = verdict.value, active = Boolean(words.length || wanted);
  let rowsFound = 0, tablesFound = 0;
  for (const part of searched) {
    if (words.length) part.texts ??= part.rows.map(row => [...row.cells].map(textOf).join("\n"));
    let left = 0;
    part.rows.forEach((row, index) => {
      const fits = (!wanted || row.dataset.verdict === wanted) && words.every(word => has(part, index, word));
      row.hidden = !fits;
      left += fits;
    });
    rowsFound += left;
    tablesFound += left > 0;
    part.section.classList.toggle("matched", left > 0);
    if (part.counter) part.counter.textContent = active ? `${left} of ${part.rows.length} rows` : `${part.rows.length} rows`;
    if (part.details) {
      part.open ??= part.details.open;
      part.details.open = active ? left > 0 : part.open;
      if (!active) part.open = undefined;
    }
  }
  document.body.classList.toggle("searching", active);
  for (const link of all("nav a")) link.hidden = active && !byId(link.hash.slice(1)).closest("section")?.classList.contains("matched");
  byId("found").textContent = active ? `${rowsFound} of ${rowsInAll} rows, in ${tablesFound} of ${searched.length} tables` : "";
  byId("clear").hidden = !active;
  return active;
}

function clearSearch() {
  find.value = verdict.value = "";
  search();
}

// show an element wherever it is hidden
function reveal(element) {
  if (document.body.classList.contains("searching")) clearSearch();
  for (let part = element.closest("details"); part; part = part.parentNode.closest("details")) part.open = true;
}

// of verdicts, those that rows have, and how many
for (const option of [...verdict.options].slice(1)) {
  const count = all(`table.searched tr[data-verdict="${option.value}"]`).length;
  if (count) option.textContent += ` (${count})`; else option.remove();
}
for (const [control, kind] of [[find, "input"], [verdict, "change"]]) control.addEventListener(kind, () => { if (search()) scrollTo(0, 0); });
byId("clear").addEventListener("click", () => { clearSearch(); find.focus(); });
byId("search").addEventListener("submit", event => event.preventDefault());
document.addEventListener("click", event => {
  const end = byId(event.target.closest("a[href^='#']")?.hash.slice(1));
  if (end && !end.closest(".matched")) reveal(end); // before the link is followed
});
addEventListener("beforeprint", () => { clearSearch(); all("details").forEach(details => { details.open = true; }); });
byId("search").hidden = false;
search(); // of what the browser kept in the fields
