// The cards as they are now.

// So many colours are there for services (page.css).
const COLOURS = 6;
const colours = new Map();

// A service keeps its colour while it is on a card; a new one has that of which there is least, first of all beside it.
function colourServices(cards) {
  const all = [...new Set(cards.flatMap((card) => Object.keys(card.services)))];
  for (const gone of [...colours.keys()].filter((one) => !all.includes(one))) colours.delete(gone);
  for (const service of all.filter((one) => !colours.has(one))) {
    const seen = Array(COLOURS).fill(0);
    for (const [other, number] of colours) {
      seen[number] += cards.some((card) => service in card.services && other in card.services) ? 100 : 1;
    }
    colours.set(service, seen.indexOf(Math.min(...seen)));
  }
}

const aged = (said) => said.age_seconds > OLD;

function showCards() {
  const said = known.gpus, cards = said ? said.gpus : [], old = Boolean(said) && aged(said);
  const why = said ? said.error || "" : "the daemon does not say what the cards do";
  const age = old ? `these figures are ${lasting(said.age_seconds)} old` : "";
  place("gpus-said").textContent = [why, age].filter(Boolean).join("; ");
  place("gpus").classList.toggle("old", old);
  colourServices(cards);
  // A card that was there within the hour is missed by its name.
  const there = new Set(cards.map((card) => card.uuid));
  const missed = why && known.samples ? known.samples.gpus.filter((card) => !there.has(card.uuid)) : [];
  if (!cards.length && !missed.length) {
    put(place("gpus"), el("p", "faint", why ? "no card can be read" : "this host has no card"));
    return;
  }
  const heads = ["", "VRAM by service, GiB", "", "Utilisation", "Temperature", "Power"]
    .map((text, number) => head(text, number > 2 ? "right" : ""));
  const unread = missed.map((card) =>
    row([el("span", "name long strong", card.name), el("span", "lost bad", "cannot be read now")]));
  put(place("gpus"), table("GPUs", heads, ...cards.map(cardRow), ...unread));
}

function cardRow(card) {
  const parts = memoryParts(card), used = card.used_mib || 0, total = card.memory_mib;
  const bar = el("span", "bar", ...parts.filter(({ mib }) => mib).map(({ mib, kind }) => barPart(kind, mib / total)));
  const held = parts.map(({ name, mib, kind }) =>
    el("span", "", swatch(kind), el("span", "", name), " ", el("span", "faint", gib(mib))));
  const free = el("span", "nowrap", swatch("pf"), el("span", "faint", `free ${gib(total - used)}`));
  const share = percent(isNumber(card.used_mib) ? used / total : null);
  const model = card.model !== card.name ? card.model.replace(/^NVIDIA /, "") : "\u00a0";
  const slowed = card.throttle && card.throttle.length ? `slowed: ${card.throttle.join(", ")}` : "";
  return row([
    together(el("span", "name long strong", card.name), el("span", "kind faint", model)),
    together(bar, el("span", "held", ...held, free)),
    el("span", "vram nowrap right", `${gib(card.used_mib)} / ${gib(total)} GiB`,
      el("span", "faint share", ` ${share.padStart(5, "\u2007")}`)),
    el("span", "busy nowrap right", percent(card.utilisation), el("span", "told faint", " busy")),
    el("span", `heat nowrap right ${heat(card.temperature_c)}`, `${whole(card.temperature_c)} °C`),
    together(el("span", "power nowrap right", `${whole(card.power_w)} / ${whole(card.power_limit_w)} W`),
      el("span", "slow warn", slowed)),
  ]);
}

// Who holds a card's memory, the largest first; what no service holds is other.
function memoryParts(card) {
  const found = Object.entries(card.services).sort(([, one], [, another]) => (another || 0) - (one || 0))
    .map(([name, mib]) => ({ name, mib, kind: `p${colours.get(name)}` }));
  const other = (card.used_mib || 0) - found.reduce((all, { mib }) => all + (mib || 0), 0);
  return other >= 1 ? [...found, { name: "other", mib: other, kind: "po" }] : found;
}

const heat = (celsius) => (!isNumber(celsius) ? "faint" : celsius >= 90 ? "bad" : celsius >= 80 ? "warn" : "");
