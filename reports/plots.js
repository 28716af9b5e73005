"use strict";
// The plots, drawn by uPlot from the rows of the page's tables; a point says on hover what its row says.
const told = JSON.parse(byId("plots").textContent), tip = byId("tip"), ring = Object.assign(document.createElement("div"), {className: "ring"});
const NEAR = 25; // pixels between a point and what points at it
let shown = null; // the point that the tip tells of

// the rows of a table that can be asked for their cells by name
function rowsOf(name) {
  const part = searched.find(({table}) => table.id === `table-${name}`);
  return part ? part.rows.map(row => ({row, cell: column => row.cells[part.columns[column]]})).map(made => ({...made, text: column => made.cell(column)?.textContent.trim() ?? ""})) : [];
}
const numberOf = text => text === "" ? NaN : Number(text); // inf and nan are no places in a plot
const short = value => value === null ? "" : Math.abs(value) >= 1e5 ? value.toExponential(0) : String(Number(value.toPrecision(6)));
const named = (row, names) => names.map(name => `${name.replaceAll("_", " ")} ${row.text(name)}`).join(", ");

function fileOf(row) {
  const cell = row.cell("source"), files = cell.querySelector("details");
  return files ? `${files.querySelector("summary").textContent}: ${(cell.querySelector("a") ?? files).textContent}, ...` : cell.textContent.trim();
}

function element(name, attributes, ...inside) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...inside);
  return made;
}

function key(colour, text) {
  const made = element("span", {className: "key"}, text);
  made.style.setProperty("--colour", colour);
  return made;
}

// the nearest of a plot's points to the pointer, and its tip
function hover(plot, points) {
  const {left, top} = plot.cursor;
  const away = ({x, y}) => Math.hypot(plot.valToPos(x, "x") - left, plot.valToPos(y, "y") - top);
  const near = left < 0 ? null : points.reduce((best, point) => !best || away(point) < away(best) ? point : best, null);
  shown = near && away(near) <= NEAR ? near : null;
  tip.hidden = !shown;
  ring.remove();
  if (!shown) return;
  const [x, y] = [plot.valToPos(shown.x, "x"), plot.valToPos(shown.y, "y")], place = plot.over.getBoundingClientRect();
  Object.assign(ring.style, {left: `${x}px`, top: `${y}px`});
  plot.over.append(ring);
  tip.textContent = shown.lines.join("\n");
  const {width, height} = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(place.left + x + 14, document.documentElement.clientWidth - width - 8))}px`;
  tip.style.top = `${place.top + y + 14 + height < innerHeight ? place.top + y + 14 : Math.max(8, place.top + y - 14 - height)}px`;
}

// a click on the point that the tip tells of leads to its row; of a finger the first touch only shows the tip
function followed(plot) {
  let held = null;
  plot.over.addEventListener("pointerdown", () => { held = shown; });
  plot.over.addEventListener("click", () => {
    if (!held || held !== shown) return;
    const {row} = held;
    tip.hidden = true;
    reveal(row);
    all(".told").forEach(other => other.classList.remove("told"));
    row.classList.add("told");
    row.scrollIntoView({block: "center"});
  });
}

// a plot with its title in a box of its own; under: draws what lies below the points; across, up: where the axes have their numbers
function plotted(box, title, data, series, scales, labels, points, {under = () => {}, across, up} = {}) {
  const holder = element("figure", {ariaLabel: `${title}: ${points.length} points`}, element("h3", {}, title));
  holder.setAttribute("role", "img");
  box.append(holder);
  const size = () => ({width: Math.max(holder.clientWidth, 200), height: Math.round(Math.max(holder.clientWidth, 200) * 0.72)});
  const axis = label => ({label, labelSize: 18, labelFont: "11px system-ui", font: "11px system-ui", values: (_, values) => values.map(short), grid: {stroke: "#eee"}, ticks: {size: 4}});
  const at = places => places && {splits: () => places, filter: (_, values) => values};
  const plot = new uPlot({
    ...size(), series: [{}, ...series], scales, axes: [{...axis(labels[0]), size: 30, ...at(across)}, {...axis(labels[1]), size: 46, ...at(up)}], legend: {show: false},
    cursor: {x: false, y: false, points: {show: false}, drag: {x: false, y: false}}, hooks: {drawAxes: [under], setCursor: [self => hover(self, points)]},
  }, data, holder);
  followed(plot);
  new ResizeObserver(() => { if (holder.clientWidth && size().width !== plot.width) plot.setSize(size()); }).observe(holder);
}

// the diagonal, and the tolerance about it
function diagonal(plot, [low, high], {tolerance, relative}) {
  const {ctx, bbox} = plot, at = (x, y) => [plot.valToPos(x, "x", true), plot.valToPos(y, "y", true)];
  const off = (value, side) => relative ? value * (1 + side * tolerance) : value + side * tolerance;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  if (tolerance !== null) {
    ctx.fillStyle = "#0072B226";
    ctx.beginPath();
    for (const [value, side] of [[low, 1], [high, 1], [high, -1], [low, -1]]) ctx.lineTo(...at(value, off(value, side)));
    ctx.fill();
  }
  ctx.strokeStyle = "#555";
  ctx.setLineDash([4, 3]);
  ctx.beginPath();
  ctx.moveTo(...at(low, low));
  ctx.lineTo(...at(high, high));
  ctx.stroke();
  ctx.restore();
}

// both scales of a scatter, from the least of both to the greatest
function ends(values, log) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (log) return [10 ** Math.floor(Math.log10(low)), 10 ** Math.max(Math.ceil(Math.log10(high)), Math.floor(Math.log10(low)) + 1)];
  const room = 0.06 * (high - low || Math.abs(high) || 1);
  return [low - room, high + room];
}

// the powers of ten in a range, at most seven of them
function decades([low, high]) {
  const first = Math.round(Math.log10(low)), count = Math.round(Math.log10(high)) - first + 1, step = Math.ceil(count / 7);
  return Array.from({length: count}, (_, place) => 10 ** (first + place)).filter((_, place) => place % step === 0);
}

function scatter(box, panel) {
  const points = rowsOf(panel.table).map(row => ({x: numberOf(row.text(panel.published)), y: numberOf(row.text(panel.ours)), row})).filter(({x, y}) => Number.isFinite(x) && Number.isFinite(y) && (!panel.log || x > 0 && y > 0)).sort((one, other) => one.x - other.x);
  if (!points.length) return;
  for (const point of points) {
    const {row} = point, off = panel.relative ? `${short(point.y / point.x)} times it` : `difference ${short(point.y - point.x)}`;
    Object.assign(point, {verdict: row.text("verdict"), row: row.row, lines: [named(row, panel.names), `published ${row.text(panel.published)}, ours ${row.text(panel.ours)} (${off}): ${row.text("verdict")}`, fileOf(row)]});
  }
  const range = ends(points.flatMap(({x, y}) => [x, y]), panel.log), verdicts = told.verdicts;
  const data = [points.map(({x}) => x), ...verdicts.map(([name]) => points.map(({verdict, y}) => verdict === name ? y : null))];
  const series = verdicts.map(([, colour]) => ({paths: () => null, points: {show: true, size: 6, width: 1, stroke: colour, fill: `${colour}99`}}));
  const scale = {distr: panel.log ? 3 : 1, range}, powers = panel.log ? decades(range) : undefined;
  plotted(box, panel.title, data, series, {x: {time: false, ...scale}, y: scale}, ["published", "ours"], points, {under: plot => diagonal(plot, range, panel), across: powers, up: powers});
}

// accuracy against the ratio, by clip norm with one noise, of each attack; published numbers as open marks
function curves(box, {table, column, published, half}, noise) {
  const rows = rowsOf(table).filter(row => Number(row.text("ratio")) > 0), attacks = [...new Set(rows.map(row => row.text("attack")))];
  box.replaceChildren();
  for (const attack of attacks) {
    const points = [], own = rows.filter(row => row.text("attack") === attack), ratios = [...new Set(own.map(row => Number(row.text("ratio"))))].sort((one, other) => one - other);
    const lines = told.clip_norms.flatMap((norm, number) => {
      const colour = told.colours[number], of = own.filter(row => row.text("clip_norm") === norm && (norm === "inf" || Number(row.text("noise_multiplier")) === noise));
      const line = (name, text, style) => {
        const values = new Map();
        for (const row of of) {
          const x = Number(row.text("ratio")), y = numberOf(row.text(name));
          if (!Number.isFinite(y)) continue;
          values.set(x, y);
          points.push({x, y, row: row.row, lines: [`${named(row, ["attack", "ratio", "shaping"])}`, `${text} ${row.text(name)}${half && row.text(half) ? ` \u00b1 ${row.text(half)}` : ""}`, fileOf(row)]});
        }
        return {values: ratios.map(ratio => values.get(ratio) ?? null), style};
      };
      const ours = line(column, column.replaceAll("_", " "), {stroke: colour, width: 1.5, spanGaps: true, points: {show: true, size: 5, fill: colour, stroke: colour}});
      return published ? [ours, line(published, "published", {paths: () => null, points: {show: true, size: 9, width: 1.5, fill: "#0000", stroke: colour}})] : [ours];
    });
    const log = ratios.length > 1, scales = {x: {time: false, distr: log ? 3 : 1, range: [0.8 * ratios[0], 1.25 * ratios.at(-1)]}, y: {}};
    const splits = ratios.filter((ratio, place) => [0, ratios.length - 1].includes(place) || /^[^1-9]*[125]$/.test(String(ratio)));
    if (points.length) plotted(box, attack, [ratios, ...lines.map(({values}) => values)], lines.map(({style}) => style), scales, ["poisons per clean row", "test accuracy"], points, {across: splits});
  }
}

for (const part of all(".needs-script")) part.hidden = false; // a plot takes its width from where it is shown
for (const panel of told.against) scatter(byId("against-plots"), panel);
byId("against-keys").append(...told.verdicts.map(([name, colour]) => key(colour, name)));

const measure = byId("measure"), noise = byId("noise"), drawCurves = () => curves(byId("curves-plots"), told.curves[measure.value], Number(noise.value));
const noises = [...new Set(rowsOf("indiscriminate").filter(row => row.text("best_acc") !== "" && row.text("clip_norm") !== "inf").map(row => Number(row.text("noise_multiplier"))))].sort((one, other) => one - other);
noise.append(...noises.map(value => element("option", {value}, String(value))));
measure.append(...told.curves.map(({text}, value) => element("option", {value}, text)));
byId("curves-keys").append(...told.clip_norms.map((norm, number) => key(told.colours[number], norm === "inf" ? "undefended" : `clip norm ${Number(norm)}`)));
for (const control of [measure, noise]) control.addEventListener("change", drawCurves);
drawCurves();
addEventListener("scroll", () => { tip.hidden = true; }, {passive: true});
