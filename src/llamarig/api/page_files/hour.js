// The last hour: a row for each card, a column for each figure, all with one axis of time.

// What a column shows: which list of a card's samples, what its full height is, and how a value is said.
const CHARTS = [
  { name: "VRAM", key: "used_mib", full: (card) => card.memory_mib, words: (mib) => `${gib(mib)} GiB` },
  { name: "Utilisation", key: "utilisation", full: () => 1, words: percent },
  {
    name: "Power", key: "power_w", words: (watts) => `${whole(watts)} W`,
    full: (card) => card.power_limit_w || Math.max(1, ...card.power_w.filter(isNumber)),
  },
];
const LONGEST = 18;

// What is drawn: samples, switches, the time at the right end, and the cells; null while nothing is.
let charted = null;
// Where in the hour somebody points, from 0 to 1; null while nobody does.
let pointed = null;

function showHour() {
  const said = known.samples, cards = known.gpus && known.gpus.gpus.length;
  place("hour-section").hidden = !cards && !(said && said.gpus.length);
  if (!said || !said.gpus.length) {
    charted = null;
    place("hour-said").textContent = "";
    const none = "the daemon does not say what the cards did";
    const why = said ? `no sample yet; one is taken every ${lasting(said.every_seconds)}` : none;
    put(place("hour"), el("p", "faint", why));
    return;
  }
  const end = now();
  const marks = (known.history || []).filter(({ kind, time }) => kind === "switch" && time > end - HOUR && time <= end);
  charted = { said, marks, end, cells: [] };
  const heads = el("div", "row heads", el("span", ""), ...CHARTS.map((chart) => head(chart.name)));
  const names = el("div", "row", head(""), ...CHARTS.map((_, number) => markNames(number)));
  const drawings = said.gpus.map((card) => el("div", "row", el("span", "name long strong", card.name),
    ...CHARTS.map((chart) => chartCell(card, chart))));
  const axis = el("div", "row", head(""), ...CHARTS.map((_, number) => timeAxis(number)));
  const found = el("div", "rows", heads, ...(marks.length ? [names] : []), ...drawings, axis);
  // The charts say it themselves, and the history names the switches.
  for (const part of [heads, names, axis]) part.setAttribute("aria-hidden", "true");
  found.style.setProperty("--tall", `${said.gpus.length <= 2 ? 72 : said.gpus.length <= 4 ? 52 : 34}px`);
  place("hour").replaceChildren(found);
  point();
}

// How far to the right a time is, in hundredths.
const across = (time) => (100 * (time - charted.end + HOUR)) / HOUR;
// Two samples that are further from each other have a gap between them.
const gap = () => 2.5 * charted.said.every_seconds;

function label(kind, text, x) {
  const found = el("span", kind, text);
  found.style.left = `${x}%`;
  return found;
}

// Names of the switches, as many as there is room for.
function markNames(number) {
  const found = el("div", `names ${number ? "again" : ""}`);
  let free = -100;
  for (const { service, outcome, time } of charted.marks) {
    const name = service || "", text = name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name;
    const x = across(time), size = 2.4 * text.length, late = x + size > 100;
    if (late ? x - size < free : x < free) continue;
    found.append(label(`${DONE[outcome] || "faint"} ${late ? "late" : ""}`, text, x));
    free = late ? 100 : x + 3 + size;
  }
  return found;
}

function timeAxis(number) {
  const found = el("div", `axis ${number ? "again" : ""}`), { end } = charted;
  // Quarters of an hour as a clock shows them, also where a zone is half an hour off.
  const shift = new Date(end * 1000).getTimezoneOffset() * 60, quarter = HOUR / 4;
  for (let time = Math.ceil((end - HOUR - shift) / quarter) * quarter + shift; time < end; time += quarter) {
    const x = across(time);
    if (x > 5 && x < 86) found.append(label("", clock(time, false), x));
  }
  found.append(label("", "now", 100));
  return found;
}

function chartCell(card, chart) {
  const { said, marks, end, cells } = charted, full = chart.full(card), values = card[chart.key];
  const svg = drawn("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" });
  for (const points of runs(values, full)) svg.append(...line(points));
  for (const { time, outcome } of marks) {
    const x = across(time);
    svg.append(drawn("line", { class: `mark ${DONE[outcome] || ""}`, x1: x, x2: x, y1: 0, y2: 100 }));
  }
  const cross = drawn("line", { class: "cross", visibility: "hidden", y1: 0, y2: 100 });
  svg.append(cross);
  // The last sample is what is now, if it is not old.
  const last = end - said.times.at(-1) <= gap() ? values.length - 1 : -1;
  const highest = Math.max(...values.filter(isNumber));
  svg.setAttribute("aria-label",
    `${chart.name} of ${card.name}, now ${chart.words(values[last])}, highest ${chart.words(highest)}`);
  const value = el("span", "value"), of = full === 1 ? "" : `of ${chart.words(full)}`;
  // Say what was at a place of the hour, by the sample's number, or what is now.
  cells.push((x, index) => {
    cross.setAttribute("visibility", x === null ? "hidden" : "visible");
    for (const side of ["x1", "x2"]) cross.setAttribute(side, x === null ? 0 : x);
    value.textContent = chart.words(values[x === null ? last : index]);
  });
  return el("div", "cell", el("div", "plot", svg),
    el("div", "said", el("span", "what", chart.name), value, el("span", "top", of)));
}

// The points of the values, in hundredths; where nothing was measured there is no line, and another run begins.
function runs(values, full) {
  const found = [];
  let before = -Infinity, run = null;
  charted.said.times.forEach((time, index) => {
    const value = values[index], x = across(time);
    if (!isNumber(value) || x < 0 || x > 100) { run = null; return; }
    if (!run || time - before > gap()) found.push(run = []);
    run.push([x, 100 - 100 * Math.min(1, Math.max(0, value / full))]);
    before = time;
  });
  return found;
}

function line(points) {
  const path = points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(1)}`).join("");
  const [[left]] = points, [right] = points.at(-1), alone = points.length === 1;
  return [
    drawn("path", { class: "area", d: `${path}L${right.toFixed(2)} 100L${left.toFixed(2)} 100Z` }),
    drawn("path", { class: alone ? "stroke alone" : "stroke", d: alone ? `${path}h0` : path }),
  ];
}

// Say what was where somebody points, in all charts together.
function point() {
  if (!charted) return;
  const { said, marks, end, cells } = charted;
  if (pointed === null) {
    place("hour-said").textContent = "";
    for (const cell of cells) cell(null, null);
    return;
  }
  const time = end - HOUR + pointed * HOUR, far = said.times.map((one) => Math.abs(one - time));
  const near = far.indexOf(Math.min(...far)), index = far[near] <= gap() ? near : -1;
  for (const cell of cells) cell(pointed * 100, index);
  const mark = marks.filter((one) => Math.abs(one.time - time) < 40).at(-1);
  place("hour-said").textContent = `${clock(time)}${mark ? `: ${purpose(mark)} ${mark.outcome}` : ""}`;
}

function pointAt(share) {
  pointed = share === null ? null : Math.min(1, Math.max(0, share));
  point();
}
