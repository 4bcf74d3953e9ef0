"use strict";
// Shows the value under the pointer: of the nearest point of every line in a chart, or of a token. The page is whole without it.
const tip = document.getElementById("tip");

function place(x, y) {
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
  tip.style.top = (y - box.height - 14 > 8 ? y - box.height - 14 : y + 18) + "px";
}

function row(text, colour) {
  const line = document.createElement("div");
  if (colour !== null) line.append(Object.assign(document.createElement("i"), { className: "key c" + colour }));
  line.append(text);
  return line;
}

function clear(plot) {
  plot.querySelectorAll(".cursor, .cursor-dot").forEach((mark) => mark.remove());
  tip.hidden = true;
}

function dot(plot, className, left, bottom) {
  const mark = Object.assign(document.createElement("span"), { className });
  mark.style.left = left + "%";
  if (bottom !== null) mark.style.top = 100 - bottom + "%";
  plot.append(mark);
}

function show(plot, series, at) {
  clear(plot);
  const near = series
    .filter((s) => s.points.length)
    .map((s) => ({ s, p: s.points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a)) }));
  if (!near.length) return;
  const first = near.reduce((a, b) => (Math.abs(b.p[0] - at) < Math.abs(a.p[0] - at) ? b : a)).p;
  const here = near.filter((n) => Math.abs(n.p[0] - first[0]) < 3);
  dot(plot, "cursor", first[0], null);
  here.forEach((n) => dot(plot, "cursor-dot c" + n.s.colour, n.p[0], n.p[1]));
  tip.replaceChildren(row(first[2], null), ...here.map((n) => row((series.length > 1 ? n.s.label + ": " : "") + n.p[3], n.s.colour)));
  const box = plot.getBoundingClientRect();
  place(box.left + (first[0] / 100) * box.width, box.top + box.height * (1 - Math.max(...here.map((n) => n.p[1])) / 100));
}

for (const plot of document.querySelectorAll(".plot")) {
  const series = JSON.parse(plot.dataset.tips);
  const stops = [...new Set(series.flatMap((s) => s.points.map((p) => p[0])))].sort((a, b) => a - b);
  let stop = stops.length - 1;
  const move = (event) => {
    const box = plot.getBoundingClientRect();
    show(plot, series, (100 * (event.clientX - box.left)) / box.width);
  };
  plot.addEventListener("pointermove", move);
  plot.addEventListener("pointerdown", move);
  plot.addEventListener("pointerleave", () => clear(plot));
  plot.addEventListener("blur", () => clear(plot));
  plot.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !stops.length) return;
    event.preventDefault();
    stop = Math.max(0, Math.min(stops.length - 1, stop + by));
    show(plot, series, stops[stop]);
  });
}

document.addEventListener("pointerover", (event) => {
  const token = event.target.closest("[data-tip]");
  if (!token) return void (event.target.closest(".plot") || (tip.hidden = true));
  tip.replaceChildren(row(token.dataset.tip, null));
  const box = token.getBoundingClientRect();
  place(box.left, box.top);
});
