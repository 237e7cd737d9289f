// Showing: which of the page's three faces is seen, the head, the services, and the work that is under way.

// How something is: fine, to be watched, in trouble, or of no weight.
const HEALTH = { ok: "ok", loading: "warn", unknown: "faint" };
const STATE = { running: "ok", starting: "warn", stopping: "warn", idle: "faint" };
const DONE = { ok: "ok", failed: "bad", interrupted: "bad", cancelled: "warn", refused: "warn" };
const SERVICE_COLUMNS = ["service", "health", "requests", "serves", "address", "notes", "memory"];

// Looks in vain since the last that was shown, and when the first of them was, by this browser's clock.
let misses = 0, lostAt = 0;
// The host as it calls itself; through tunnels all have one address.
let host = location.host;

function show() {
  only("main");
  place("main").classList.remove("asking");
  const { status } = known, wrong = troubles(status);
  const sick = status.active.some((service) => tone(service, status) === "bad");
  // While a job runs the first active service is not what it is about.
  const name = status.job ? status.job.service || "" : status.model_name || status.model || "";
  put(place("state"),
    el("span", sick ? "bad" : STATE[status.state] || "bad", el("span", "dot"), status.state),
    el("span", "strong", name ? ` ${name}` : ""),
  );
  // What serves well is said below.
  const well = status.state === "running" && !status.job;
  say("sentence", wrong.length ? wrong.join("; ") : well ? "" : status.status);
  place("sentence").className = wrong.length ? "bad" : "faint";
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const release = status.agent.release ? ` (${status.agent.release})` : "";
  place("agent").textContent = `llamarigd ${status.agent.version}${release}, asked at ${clock(now())} (${zone})`;
  place("forget").hidden = !key;
  host = status.agent.host;
  place("host").textContent = host;
  document.title = `${wrong.length ? "! " : ""}llamarig ${host}: ${name || status.state}`;
  showServices(status);
  showWork(status);
  showCards();
  if (hourIsNew) {
    showHour();
    showHistory();
    hourIsNew = false;
  }
  // Only now it has been seen: an answer that cannot be shown is none.
  [misses, lostAt] = [0, 0];
}

// A look was in vain.
function miss(error) {
  if (error instanceof Refused) { askForKey(); return; }
  misses += 1;
  lostAt = lostAt || Date.now();
  // A daemon that is started anew is back within a moment.
  if (misses < 2 && heardAt) return;
  only("gone");
  const [title, why] = reason(error);
  say("gone-title", title);
  place("gone-why").textContent = why;
  const since = `Since ${clock(lostAt / 1000)}, for ${lasting((Date.now() - lostAt) / 1000)}`;
  place("gone-since").textContent = `${since}; it is asked again every ${EVERY / 1000} s.`;
}

function reason(error) {
  if (error instanceof Unable) return ["llamarigd cannot say what it does", error.message];
  if (!(error instanceof Away)) return ["This page cannot show what llamarigd says", `Load it anew. ${error}`];
  const rest = "Services that ran go on by themselves. On the host: systemctl status llamarigd";
  return ["llamarigd does not answer", `Nothing is known of the host now. ${rest}`];
}

function askForKey() {
  const tried = key;
  keep(null);
  only("key");
  place("key-why").textContent = tried
    ? "That key is none, or was taken back."
    : "This host tells what it does to those who have a key. On the host: sudo llamarig keys add NAME --scope read";
  place("key-text").focus();
}

// Of the three faces show this; but for the main one, what is not known any more is not left on the page.
function only(id) {
  for (const other of ["gone", "key", "main"]) place(other).hidden = other !== id;
  if (id === "main") return;
  Object.assign(known, NOTHING);
  [cardsAt, hourAt, job, charted] = [0, 0, null, null];
  if (id === "key") place("gone-title").textContent = "";
  for (const part of ["services", "work", "gpus", "hour", "history"]) place(part).replaceChildren();
  for (const part of ["gpus-said", "hour-said", "sentence", "agent"]) place(part).textContent = "";
  put(place("state"), el("span", "bad", el("span", "dot hollow"), id === "key" ? "a key is needed" : "gone"));
  document.title = `llamarig ${host}: ${id}`;
}

// What is down while a job runs has left on purpose.
const tone = (service, status) =>
  HEALTH[service.health] || (status.job && service.health === "down" ? "warn" : "bad");

function troubles(status) {
  const said = known.gpus, some = said && said.gpus.length && !aged(said);
  return [
    ...status.active.filter((one) => tone(one, status) === "bad").map((one) => `${one.service} is ${one.health}`),
    ...Object.keys(status.given_up).map((service) => `${service} was given up`),
    ...(said && said.error ? [some ? "not all cards can be read" : "the cards cannot be read"] : []),
  ];
}

function showServices(status) {
  const lines = status.active.flatMap((service) => serviceRows(service, status));
  const fallback = status.default ? `; the default is ${status.default}` : "";
  const nothing = el("p", "text", el("span", "dot hollow faint"), "nothing serves", el("span", "faint", fallback));
  const given = Object.entries(status.given_up).map(([service, { time, reason }]) =>
    el("p", "text", el("span", "sign bad", "×"), el("span", "bad strong", service),
      " was given up at ", moment(time), ": ", el("span", "", reason)));
  const warned = status.warnings.map((text) => el("p", "text", el("span", "sign warn", "!"), el("span", "", text)));
  const heads = SERVICE_COLUMNS.map((text) => head(text));
  put(place("services"), lines.length ? table("Services", heads, ...lines) : nothing, ...given, ...warned);
}

function serviceRows(one, status) {
  const kind = tone(one, status);
  const flags = [
    one.pinned ? "pinned" : "", one.service === status.default ? "default" : "",
    one.restarts ? many(one.restarts, "restart") : "", one.planned ? "" : "an older spec",
  ].filter(Boolean).join(", ");
  const flight = one.in_flight === null ? "-" : one.in_flight ? `${one.in_flight} in flight` : "at rest";
  const line = row([
    el("span", "long", el("span", `dot ${kind}`), el("span", "strong", one.service), " ",
      el("span", "faint", one.name && one.name !== one.service ? one.name : "")),
    el("span", `health ${kind}`, one.health),
    el("span", `flight nowrap ${one.in_flight ? "" : "faint"}`, flight),
    el("span", "faint nowrap", `for ${lasting(now() - one.since)}`),
    el("span", "url long", linked(one.url)),
    el("span", `flags ${flags ? "some" : ""} ${one.restarts || !one.planned ? "warn" : "faint"}`, flags),
    memoryOf(one.service),
  ]);
  if (!one.reason || one.health === "ok") return [line];
  return [line, wide(SERVICE_COLUMNS.length, el("span", "why bad", one.reason))];
}

// The cards that a service is on; where there are many, their number, and their names to who points there.
function memoryOf(service) {
  const on = (known.gpus ? known.gpus.gpus : []).filter((card) => service in card.services);
  const parts = on.map((card) => card.services[service]);
  const each = on.map((card, number) => `${card.name} ${gib(parts[number])} GiB`).join(", ");
  const sum = parts.every(isNumber) ? parts.reduce((all, mib) => all + mib, 0) : null;
  const held = on.length > 2 ? `${on.length} cards, ${gib(sum)} GiB` : each;
  const found = el("span", "where faint", held ? `on ${held}` : "");
  found.title = each;
  return found;
}

function linked(url, here = location.hostname) {
  const text = url.replace(/\/$/, "");
  if (!/^https?:\/\//.test(url)) return text;
  // To whoever looks from elsewhere, an address of this host alone is another host's.
  if (local(new URL(url).hostname) && !local(here)) return text;
  const link = el("a", "", text);
  link.href = url;
  return link;
}

const local = (host) => host === "localhost" || host === "[::1]" || host.startsWith("127.");

// What a job is to do, or an event of the history was.
const purpose = ({ kind, service }) =>
  (kind === "switch" ? `switch to ${service}` : service ? `${kind} ${service}` : kind);

function showWork(status) {
  const current = status.job, found = [];
  if (current) {
    const steps = Object.entries(current.phases).filter(([name]) => name !== current.phase)
      .map(([name, seconds]) => el("span", "faint", `${name} ${brief(seconds)}`));
    if (current.phase) steps.push(el("span", "now", current.phase));
    const since = current.started ? el("span", "faint", ` for ${lasting(now() - current.started)}`) : "";
    found.push(el("div", "job",
      el("p", "", el("span", "sign warn", "→"), el("span", "warn strong", purpose(current)), since,
        current.text ? `  ${current.text}` : ""),
      el("div", "steps small", ...steps)));
  }
  const then = `then: ${status.queue.map(purpose).join(", ")}`;
  if (status.queue.length) found.push(el("p", current ? "faint text" : "job", then));
  put(place("work"), ...found);
}
