"use strict";

// How the page is made: parts of it, tables, and figures as people read them.

const place = (id) => document.getElementById(id);

function el(tag, kind, ...content) {
  const found = document.createElement(tag);
  if (kind) found.className = kind;
  found.append(...content.filter((item) => item !== null && item !== ""));
  return found;
}

function drawn(tag, attributes) {
  const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  return found;
}

// Make a place look like what is fresh, and touch nothing else: what is selected, focused or pointed at stays so.
function put(at, ...fresh) {
  const was = [...at.childNodes];
  fresh.forEach((next, number) => (was[number] ? become(was[number], next) : at.append(next)));
  for (const left of was.slice(fresh.length)) left.remove();
}

function become(was, next) {
  if (was.isEqualNode(next)) return;
  if (was.nodeName !== next.nodeName) { was.replaceWith(next); return; }
  if (was.nodeType === Node.TEXT_NODE) { was.data = next.data; return; }
  for (const name of new Set([...was.getAttributeNames(), ...next.getAttributeNames()])) {
    // The policy lets no text become a style.
    if (name === "style") was.style.cssText = next.style.cssText;
    else if (!next.hasAttribute(name)) was.removeAttribute(name);
    else if (was.getAttribute(name) !== next.getAttribute(name)) was.setAttribute(name, next.getAttribute(name));
  }
  put(was, ...next.childNodes);
}

// A text that is read aloud whenever it is set.
function say(id, text) {
  if (place(id).textContent !== text) place(id).textContent = text;
}

// A table for those who hear it too; the columns' names are seen where a figure does not say what it is.
function table(name, heads, ...rows) {
  const found = el("div", "rows", row(heads, "columnheader"), ...rows);
  found.setAttribute("role", "table");
  found.setAttribute("aria-label", name);
  found.firstChild.className = "row heads";
  return found;
}

function row(cells, role = "cell") {
  const found = el("div", "row", ...cells);
  found.setAttribute("role", "row");
  for (const cell of found.children) cell.setAttribute("role", role);
  return found;
}

// A row of one cell that is as wide as so many columns.
function wide(columns, cell) {
  const found = row([cell]);
  cell.setAttribute("aria-colspan", columns);
  return found;
}

const head = (text, kind = "") => el("span", `head ${kind}`, text);
// Several things that are one to those who hear it.
const together = (...content) => el("span", "one", ...content);

// A part of a bar, as long as its share of the whole.
function barPart(kind, share) {
  const found = el("i", kind);
  found.style.width = `${100 * share}%`;
  return found;
}

const swatch = (kind) => el("span", `swatch ${kind}`);

// Figures. What nobody knows is a dash, never a zero.

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const whole = (value) => (isNumber(value) ? Math.round(value).toString() : "-");
const gib = (mib) => (isNumber(mib) ? (mib / 1024).toFixed(1) : "-");
const percent = (share) => (isNumber(share) ? `${Math.round(share * 100)} %` : "- %");
const many = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
const twoDigits = (number) => String(number).padStart(2, "0");

function lasting(seconds) {
  const all = Math.max(0, Math.round(seconds));
  if (all < 100) return `${all} s`;
  if (all < 7200) return `${Math.round(all / 60)} min`;
  if (all < 172800) return `${Math.floor(all / 3600)} h ${twoDigits(Math.floor((all % 3600) / 60))} min`;
  return `${Math.floor(all / 86400)} days`;
}

const brief = (seconds) => (seconds < 10 ? `${seconds.toFixed(1)} s` : lasting(seconds));

function clock(seconds, precise = true) {
  const time = new Date(seconds * 1000);
  const minutes = `${twoDigits(time.getHours())}:${twoDigits(time.getMinutes())}`;
  return precise ? `${minutes}:${twoDigits(time.getSeconds())}` : minutes;
}

// A moment of today as a time of day, and one of another day with its date.
function moment(seconds) {
  if (!isNumber(seconds) || !seconds) return el("time", "", "-");
  const time = new Date(seconds * 1000), today = new Date(now() * 1000);
  const date = `${twoDigits(time.getMonth() + 1)}-${twoDigits(time.getDate())}`;
  const isToday = time.toDateString() === today.toDateString();
  const found = el("time", "", isToday ? clock(seconds) : `${date} ${clock(seconds, false)}`);
  found.title = time.toString();
  return found;
}
