// What happened on the host, the newest first.

// The colours of a switch's phases, by what they are about: who leaves, who comes, the load itself.
const PHASES = {
  wait: "po", validate: "po", drain: "p4", stop: "p1", free: "p1", prepare: "p2", start: "p2", load: "p0",
  completion: "p5", placement: "p5", commit: "p5", back: "p3",
};
const MEANT = {
  p4: "drain", p1: "stop, free", p2: "prepare, start", p0: "load", p5: "checks", p3: "back to what was",
  po: "wait, validate",
};
const EVENTS = 30;
const EVENT_COLUMNS = ["time", "what", "outcome", "took", "phases", "notes"];

const phasesOf = (event) => Object.entries(event.phases || {});
const took = (event) => phasesOf(event).reduce((sum, [, seconds]) => sum + seconds, 0);

function showHistory() {
  const events = (known.history || []).slice(-EVENTS).reverse();
  if (!events.length) {
    const why = known.history ? "nothing has happened yet" : "the daemon does not say what happened";
    put(place("history"), el("p", "faint", why));
    return;
  }
  const longest = Math.max(...events.map(took), 1), bars = events.map((event) => phaseBar(event, longest));
  const seen = new Set(bars.flatMap((bar) => [...bar.children]).map((part) => part.className));
  const meant = Object.entries(MEANT).filter(([kind]) => seen.has(kind))
    .map(([kind, text]) => el("span", "nowrap", swatch(kind), text));
  const lines = events.map((event, number) => eventRow(event, bars[number]));
  put(place("history"), table("History", EVENT_COLUMNS.map((text) => head(text)), ...lines),
    el("p", "legend small faint", ...meant));
}

function eventRow(event, bar) {
  const health = event.kind === "health";
  const how = health ? (event.outcome === "ok" ? "ok" : "bad") : DONE[event.outcome] || "faint";
  const from = event.previous && event.previous !== event.service ? `from ${event.previous}` : "";
  const most = phasesOf(event).sort(([, one], [, another]) => another - one).slice(0, 3)
    .filter(([, seconds]) => seconds >= 0.05);
  const notes = [from, inWords(most), event.reason, event.origin ? `by ${event.origin}` : ""].filter(Boolean);
  return row([
    el("span", "when faint nowrap", moment(event.time)),
    el("span", "what long strong", health ? `${event.service} is` : purpose(event)),
    el("span", `${how} nowrap`, event.outcome),
    el("span", "right nowrap", phasesOf(event).length ? brief(took(event)) : ""),
    together(bar),
    el("span", "note", ...notes.flatMap((text, number) => [number ? " · " : "", el("span", "", text)])),
  ]);
}

const inWords = (phases) => phases.map(([name, seconds]) => `${name} ${brief(seconds)}`).join(", ");

// What an event took, by its phases, as long as its share of the longest; what is too short to be seen is left out.
function phaseBar(event, longest) {
  const phases = phasesOf(event), seen = phases.filter(([, seconds]) => seconds / longest > 0.004);
  const bar = el("span", "bar", ...seen.map(([name, seconds]) => barPart(PHASES[name] || "po", seconds / longest)));
  if (!phases.length) return bar;
  bar.title = inWords(phases);
  bar.setAttribute("aria-label", bar.title);
  bar.setAttribute("role", "img");
  return bar;
}
