"use strict";
// Draws a run: the timeline with its lanes, the maps of its images, the table of its events.
// All text of the run goes through textContent and fillText: it is never taken for markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const ROW = 15, LANE_GAP = 9, AXIS = 40, PAGE_ROWS = 300, MOMENT = 3;
const NAMES = { read: "read", write: "write", flush: "flush", interrupt: "interrupt", format: "format", ring: "ring",
  chosen: "unnatural decision", natural: "natural decision", error: "error", unfinished: "never ended", other: "other" };

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const make = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};
const micros = (ns) => (ns / 1000).toLocaleString("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 });

function tell(event, text) {
  const tip = byId("tip");
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 16 + tip.offsetHeight < innerHeight;
  tip.style.left = Math.max(4, x) + "px";
  tip.style.top = (below ? event.clientY + 16 : Math.max(4, event.clientY - tip.offsetHeight - 10)) + "px";
}

function fitted(canvas, height) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = height + "px";
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

// -- the axis: time, or time whose long pauses are cut short ---------------------------------------

function makeAxis(squeeze) {
  const times = [...new Set([0, ...data.events.map((event) => event[1])])].sort((a, b) => a - b);
  if (times.length < 2) times.push(times[0] + 1000);
  const gaps = times.slice(1).map((time, at) => time - times[at]);
  const usual = [...gaps].sort((a, b) => a - b)[Math.floor(gaps.length * 0.9)];
  const most = squeeze ? Math.max(usual * 2, 1) : Infinity;
  const places = [0];
  for (const gap of gaps) places.push(places[places.length - 1] + Math.min(gap, most));
  const between = (from, to, value) => {
    let low = 0, high = from.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (from[middle] <= value) low = middle; else high = middle;
    }
    return to[low] + (value - from[low]) * (to[high] - to[low]) / ((from[high] - from[low]) || 1);
  };
  return { place: (ns) => between(times, places, ns), ns: (place) => between(places, times, place),
    end: places[places.length - 1] };
}

// -- the timeline ---------------------------------------------------------------------------------

const canvas = byId("canvas");
const tops = [];
let height = AXIS + 4;
for (const [, rows] of data.lanes) {
  tops.push(height);
  height += rows * ROW + LANE_GAP;
}
let axis, view, hovered = null, chosenEvent = -1;
const orderedMarks = data.marks.map(([lane, row, begin, end, look, event, request]) =>
  ({ lane, row, begin, end, look, event, request }));

function setAxis(squeeze) {
  axis = makeAxis(squeeze);
  for (const mark of orderedMarks) {
    mark.from = axis.place(mark.begin);
    mark.to = mark.end === null ? mark.from : axis.place(mark.end);
  }
  const margin = axis.end * 0.01;
  view = { from: -margin, to: axis.end + margin };
}

let across = 1;  // pixels; asking the canvas for each mark would take most of the time
const toX = (place) => (place - view.from) / (view.to - view.from) * across;
const toPlace = (x) => view.from + x / across * (view.to - view.from);

function box(mark) {
  const x = toX(mark.from), width = mark.end === null ? MOMENT : Math.max(MOMENT, toX(mark.to) - x);
  return [x, tops[mark.lane] + mark.row * ROW, width, ROW - 3];
}

const shortTime = (ns) => ns < 1e6 ? micros(ns) + " us" : micros(ns / 1000) + " ms";

function ticks() {
  const wanted = Math.max(2, Math.floor(canvas.clientWidth / 130)), found = [];
  for (let at = 0; at <= wanted; at++) {
    const place = view.from + (view.to - view.from) * at / wanted;
    if (place >= 0 && place <= axis.end) found.push([toX(place), axis.ns(place)]);
  }
  return found;
}

function draw() {
  const pen = fitted(canvas, height), width = across = canvas.clientWidth, page = colour("page");
  const looks = Object.fromEntries(Object.keys(NAMES).map((look) => [look, colour(look)]));
  const ink = colour("ink"), dim = colour("dim"), line = colour("line"), panel = colour("panel"), bad = colour("bad");
  pen.font = "11px ui-monospace, 'DejaVu Sans Mono', monospace";
  data.lanes.forEach(([, rows], lane) => {
    if (lane % 2 === 0) {
      pen.fillStyle = panel;
      pen.fillRect(0, tops[lane] - LANE_GAP / 2, width, rows * ROW + LANE_GAP);
    }
  });
  pen.strokeStyle = line;
  pen.fillStyle = dim;
  for (const [x, ns] of ticks()) {
    pen.beginPath(); pen.moveTo(x, 17); pen.lineTo(x, height); pen.stroke();
    const label = shortTime(ns), half = pen.measureText(label).width / 2;
    pen.fillText(label, Math.min(Math.max(2, x - half), width - 2 * half - 2), 13);
  }
  const request = hovered ? hovered.request : 0, filled = new Set();
  let drawn = 0;
  for (const mark of orderedMarks) {
    const [x, y, wide, high] = box(mark);
    if (x > width || x + wide < 0) continue;
    drawn++;
    // Thousands of moments in one pixel are one: without this a long run takes seconds to draw.
    const spot = mark.end === null ? mark.lane + " " + Math.round(x) + mark.look : "";
    if (spot && filled.has(spot) && mark !== hovered) continue;
    filled.add(spot);
    pen.globalAlpha = request && mark.request !== request ? 0.22 : 1;
    pen.fillStyle = looks[mark.look] || looks.other;
    pen.fillRect(x, y, wide, high);
    pen.fillStyle = page;
    if (wide > 46) label(pen, mark, x, y, wide, width);
    if (mark === hovered || mark.event === chosenEvent) {
      pen.globalAlpha = 1;
      pen.strokeStyle = ink;
      pen.lineWidth = 1.5;
      pen.strokeRect(x - 1, y - 1, wide + 2, high + 2);
      pen.lineWidth = 1;
    }
  }
  pen.globalAlpha = 1;
  if (request) arrows(pen, request, ink);
  for (const [ns, kind] of data.alarms) {
    const x = toX(axis.place(ns));
    if (x < 0 || x > width) continue;
    pen.strokeStyle = pen.fillStyle = bad;
    pen.setLineDash(kind === "violation" ? [] : [5, 4]);
    pen.beginPath(); pen.moveTo(x, 33); pen.lineTo(x, height); pen.stroke();
    pen.setLineDash([]);
    const half = pen.measureText(kind).width / 2;
    pen.fillText(kind, Math.min(Math.max(2, x - half), width - 2 * half - 2), 30);
  }
  canvas.dataset.drawn = drawn;
  canvas.dataset.from = axis.ns(Math.max(0, view.from));
  canvas.dataset.to = axis.ns(Math.min(axis.end, view.to));
}

function label(pen, mark, x, y, wide, width) {
  const event = data.events[mark.event];
  const from = Math.max(x, 0), room = Math.min(x + wide, width) - from - 8;
  const text = event[3] === "submit" ? (/type=("[^"]*"|\S+)/.exec(event[4]) || ["", ""])[1].replace(/"/g, "") + " #" +
    mark.request : event[3] === "call" ? (/what=(\S+)/.exec(event[4]) || ["", ""])[1] : "";
  if (!text || room < 30) return;
  pen.save();
  pen.beginPath(); pen.rect(from, y, room + 6, ROW); pen.clip();
  pen.fillText(text, from + 4, y + 10);
  pen.restore();
}

function arrows(pen, request, ink) {
  const calls = data.lanes.findIndex(([name]) => name === "file calls");
  const its = orderedMarks.filter((mark) => mark.request === request);
  const owner = its.find((mark) => data.events[mark.event][3] === "submit");
  if (!owner) return;
  const [, ownerY, , ownerHigh] = box(owner);
  pen.strokeStyle = pen.fillStyle = ink;
  for (const call of its.filter((mark) => mark.lane === calls)) {
    const [x, y] = box(call);
    pen.beginPath(); pen.moveTo(x, ownerY + ownerHigh); pen.lineTo(x, y); pen.stroke();
    pen.beginPath(); pen.moveTo(x, y); pen.lineTo(x - 3.5, y - 6); pen.lineTo(x + 3.5, y - 6); pen.fill();
  }
}

function markAt(x, y) {
  let best = null, nearest = 5;
  for (const mark of orderedMarks) {
    const [left, top, wide, high] = box(mark);
    if (y < top - 1 || y > top + high + 1) continue;
    const away = x < left ? left - x : x > left + wide ? x - left - wide : 0;
    if (away < nearest || (away === 0 && nearest === 0 && mark.end === null)) { best = mark; nearest = away; }
  }
  return best;
}

function describe(mark) {
  const [number, ns, source, kind, fields] = data.events[mark.event];
  const lasted = mark.end === null ? "" : " for " + micros(mark.end - mark.begin) + " us" +
    (mark.look === "unfinished" ? ", and never ended" : "");
  const what = source === "decision" ? "decided: " + kind : source + " " + kind;
  return `${what}\nat ${micros(ns)} us${lasted} (event ${number})\n${fields.replace(/ (?=[\w]+=)/g, "\n")}`;
}

function zoom(factor, x) {
  const centre = toPlace(x), least = axis.end * 1e-6;
  const span = Math.min(Math.max((view.to - view.from) * factor, least), axis.end * 1.02);
  const from = centre - span * (x / canvas.clientWidth);
  show(from, from + span);
}

function show(from, to) {
  const span = to - from, margin = axis.end * 0.01;
  from = Math.min(Math.max(from, -margin), axis.end + margin - span);
  view = { from, to: from + span };
  draw();
}

let drag = null;
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    const by = event.deltaX / canvas.clientWidth * (view.to - view.from);
    show(view.from + by, view.to + by);
  } else zoom(Math.exp(event.deltaY * 0.002), event.offsetX);
}, { passive: false });
canvas.addEventListener("pointerdown", (event) => {
  drag = { x: event.offsetX, from: view.from, to: view.to, moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (drag) {
    const by = (drag.x - event.offsetX) / canvas.clientWidth * (drag.to - drag.from);
    drag.moved = drag.moved || Math.abs(drag.x - event.offsetX) > 3;
    show(drag.from + by, drag.to + by);
    return;
  }
  const found = markAt(event.offsetX, event.offsetY);
  tell(event, found ? describe(found) : "");
  if (found !== hovered) { hovered = found; draw(); }
});
canvas.addEventListener("pointerup", (event) => {
  const found = drag && !drag.moved ? markAt(event.offsetX, event.offsetY) : null;
  drag = null;
  if (found) select(found.event);
});
canvas.addEventListener("pointerleave", (event) => { hovered = null; tell(event, ""); draw(); });

function showAround(ns) {
  const place = axis.place(ns), span = axis.end / 25;
  show(place - span * 0.8, place + span * 0.2);
}

byId("whole").onclick = () => show(-axis.end * 0.01, axis.end * 1.01);
byId("in").onclick = () => zoom(0.5, canvas.clientWidth / 2);
byId("out").onclick = () => zoom(2, canvas.clientWidth / 2);
// What to look at first: what went wrong, or what was done to the run.
const ALARMS = [["violation", "The failure"], ["power-cut", "The power cut"], ["fault", "The fault"]];
const worst = ALARMS.find(([kind]) => data.alarms.some((alarm) => alarm[1] === kind));
byId("alarm").hidden = !worst;
if (worst) {
  byId("alarm").textContent = worst[1];
  byId("alarm").onclick = () => showAround(data.alarms.find((alarm) => alarm[1] === worst[0])[0]);
}
byId("squeeze").onchange = (event) => { setAxis(event.target.checked); draw(); };

function labels() {
  const place = byId("labels");
  place.style.height = height + "px";
  data.lanes.forEach(([name], lane) => {
    const element = make("div", name);
    element.title = name;
    element.style.top = tops[lane] - 3 + "px";
    place.append(element);
  });
}

function swatch(name, text) {
  const element = make("span", undefined, "swatch"), spot = make("i");
  spot.style.background = `var(--${name})`;
  element.append(spot, text);
  return element;
}

// -- the maps -------------------------------------------------------------------------------------

const MAP_LOOKS = { "!": "map-bad", ".": "map-free", "l": "map-l" };
const mapLook = (letter) => MAP_LOOKS[letter] || "map-" + letter;
const drawMaps = [];

function addMap(place, disk, which, view) {
  // The free end of a disk says nothing: both maps stop some cells behind what is last in use in either.
  const used = Math.max(...disk.maps.map((map) => map[view].replace(/\.+$/, "").length));
  const letters = disk.maps[which][view].slice(0, used + 60), before = disk.maps[0][view];
  const canvas = make("canvas"), size = letters.length > 1500 ? 8 : 12;
  const isChanged = (cell) => view === "file" ? which === 1 && disk.changed.includes(cell)
    : which === 1 && (letters[cell] !== before[cell] || disk.maps[1].hosts[cell] !== disk.maps[0].hosts[cell] ||
      changedHosts(disk).has(disk.maps[1].hosts[cell]));
  const columns = () => Math.max(1, Math.floor(canvas.clientWidth / size));
  place.append(canvas);
  drawMaps.push(() => {
    const wide = columns(), pen = fitted(canvas, Math.ceil(letters.length / wide) * size || 1);
    const looks = {}, mark = colour("changed");
    for (let cell = 0; cell < letters.length; cell++) {
      const x = cell % wide * size, y = Math.floor(cell / wide) * size;
      pen.fillStyle = looks[letters[cell]] = looks[letters[cell]] || colour(mapLook(letters[cell]));
      pen.fillRect(x, y, size - 1, size - 1);
      if (isChanged(cell)) {
        pen.strokeStyle = mark;
        pen.lineWidth = 1.5;
        pen.strokeRect(x + 1, y + 1, size - 3, size - 3);
      }
    }
    canvas.dataset.cells = letters.length;
  });
  canvas.addEventListener("pointermove", (event) => {
    const cell = Math.floor(event.offsetX / size) + Math.floor(event.offsetY / size) * columns();
    if (event.offsetX >= columns() * size || cell >= letters.length) return tell(event, "");
    const bytes = disk.cluster * disk.per_cell, first = cell * bytes, host = disk.maps[which].hosts[cell];
    const group = disk.per_cell > 1 ? ` (${disk.per_cell} clusters)` : "";
    tell(event, `${view} offset 0x${first.toString(16)}${group}\n${kindName(letters[cell], view)}` +
      (view === "guest" && host >= 0 && disk.per_cell === 1 ? ` at file offset 0x${host.toString(16)}` : "") +
      (isChanged(cell) ? "\nchanged by this run" : ""));
  });
  canvas.addEventListener("pointerleave", (event) => tell(event, ""));
}

const kindNames = new Map(data.kinds);
const kindName = (letter, view) => letter === "." && view === "guest" ? "not allocated" : kindNames.get(letter);

function changedHosts(disk) {
  disk.hosts = disk.hosts || new Set(disk.changed.map((cell) => cell * disk.cluster * disk.per_cell));
  return disk.hosts;
}

function tally(letters, view) {
  const counts = {};
  for (const letter of letters) counts[letter] = (counts[letter] || 0) + 1;
  return Object.entries(counts).map(([letter, count]) => `${count} ${kindName(letter, view)}`).join(", ");
}

function maps() {
  for (const disk of data.disks) {
    const place = byId("maps");
    const unit = disk.per_cell > 1 ? `${disk.per_cell} clusters of ${disk.cluster} bytes` : `a cluster of ${disk.cluster} bytes`;
    place.append(make("h3", disk.name), make("p", `A cell is ${unit}. Changed in the file: ${disk.changed.length || "none"}.`));
    const pair = make("div", undefined, "pair");
    place.append(pair);
    for (const view of ["file", "guest"]) {
      for (const which of [0, 1]) {
        const side = make("div"), map = disk.maps[which];
        const title = `${view === "file" ? "file" : "guest's disk"}, ${which ? "after" : "before"}`;
        side.append(make("p", title + ": " + (map.trouble || tally(map[view], view))));
        pair.append(side);
        if (!map.trouble) addMap(side, disk, which, view);
      }
    }
  }
  const used = new Set(data.disks.flatMap((disk) => disk.maps.flatMap((map) => [...map.file, ...map.guest])));
  for (const [letter, name] of data.kinds)
    if (used.has(letter)) byId("kinds").append(swatch(mapLook(letter), name));
  byId("kinds").append(make("span", "A frame marks what the run changed; a free end is not drawn.", "swatch"));
}

// -- the table ------------------------------------------------------------------------------------

let matching = [], firstRow = 0;
const texts = data.events.map((event) => event.slice(2).join(" ").toLowerCase());
const alarmed = new Set(data.alarms.map(([, , event]) => event));

function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (text) => words.every((word) =>
    word.length > 1 && word[0] === "!" ? !text.includes(word.slice(1)) : text.includes(word));
  matching = [...texts.keys()].filter((at) => fits(texts[at]));
  firstRow = Math.max(0, matching.length - PAGE_ROWS);
  rows();
}

function rows() {
  const shown = matching.slice(firstRow, firstRow + PAGE_ROWS);
  byId("events").tBodies[0].replaceChildren(...shown.map((at) => {
    const [number, ns, source, kind, fields] = data.events[at], row = make("tr");
    row.className = (alarmed.has(at) ? "alarm " : "") + (at === chosenEvent ? "selected" : "");
    row.append(make("td", number), make("td", micros(ns)), make("td", source), make("td", kind), make("td", fields));
    row.onclick = () => { chosenEvent = at; showAround(ns); rows(); };
    return row;
  }));
  byId("found").textContent = matching.length ? `${firstRow + 1} to ${firstRow + shown.length} of ` +
    `${matching.length} events` : "no event fits";
  byId("earlier").disabled = firstRow === 0;
  byId("later").disabled = firstRow + PAGE_ROWS >= matching.length;
}

function select(at) {
  chosenEvent = at;
  if (!matching.includes(at)) { byId("filter").value = ""; filter(); }
  firstRow = Math.max(0, matching.indexOf(at) - 20);
  rows();
  draw();
  const row = document.querySelector("tr.selected");
  if (row) row.scrollIntoView({ block: "center" });
}

byId("filter").oninput = filter;
byId("earlier").onclick = () => { firstRow = Math.max(0, firstRow - PAGE_ROWS); rows(); };
byId("later").onclick = () => { firstRow += PAGE_ROWS; rows(); };
byId("copy").onclick = async () => {
  const text = byId("command").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    getSelection().selectAllChildren(byId("command"));
    document.execCommand("copy");
  }
  byId("copy").textContent = "Copied";
};

// -- begin ----------------------------------------------------------------------------------------

function drawAll() {
  draw();
  drawMaps.forEach((drawMap) => drawMap());
}

labels();
const looks = new Set(orderedMarks.map((mark) => mark.look));
for (const [look, name] of Object.entries(NAMES)) if (looks.has(look)) byId("legend").append(swatch(look, name));
maps();
setAxis(true);
drawAll();
filter();
addEventListener("resize", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
document.body.dataset.ready = "yes";
