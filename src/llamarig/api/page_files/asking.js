// Asking the daemon: what is known of the host, how often it is asked for, and the key.

// In milliseconds: between two looks; for the cards, whose reading is a process of its own on the host; for what is
// drawn over an hour; and how long an answer is waited for.
const EVERY = 2000, CARDS = 5000, SLOW = 10000, PATIENCE = 4000;
// Figures that are older, in seconds, are said to be so.
const OLD = 10;
const HOUR = 3600, STORED = "llamarig-key";

const NOTHING = { status: null, gpus: null, history: [], samples: null };
const known = { ...NOTHING };
// When the daemon answered last, and when the cards and the hour were asked for last, by this browser's clock.
let heardAt = 0, cardsAt = 0, hourAt = 0;
// The hour and the history are known anew, and not shown yet: the look that asked for them may not be the newest now.
let hourIsNew = false;
// The daemon's clock counts: a browser's may be another, by so many seconds.
let skew = 0;
const now = () => Date.now() / 1000 + skew;
// Only the newest look goes on; each has a number.
let turn = 0;
// The daemon whose page this is, the job that it was at, and the key that it wants.
let maker = null, job = null, key = null;

class Refused extends Error {}
class Away extends Error {}
class Unable extends Error {}

function keep(text) {
  key = text;
  // A browser that keeps nothing refuses this; then the key is there as long as the page is.
  try {
    if (text) sessionStorage.setItem(STORED, text);
    else sessionStorage.removeItem(STORED);
  } catch { /* as said */ }
}

async function ask(path) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let answer = null, text = "";
  try {
    answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    text = await answer.text();
  } catch {
    throw new Away();
  }
  if (answer.ok) return JSON.parse(text);
  let why = "";
  try { why = JSON.parse(text).error; } catch { /* somebody else's words */ }
  throw new (answer.status === 401 ? Refused : Unable)(why || `it answers ${answer.status}`);
}

// Look at the host, show it, and look again after a while; not where nobody sees it.
async function look() {
  const mine = ++turn;
  try {
    const status = await ask("/status");
    if (mine !== turn) return;
    // Another daemon may mean another thing by the same words: its own page knows.
    const answers = `${status.agent.version} ${status.agent.release}`;
    if (maker !== null && maker !== answers) { location.reload(); return; }
    maker = answers;
    heardAt = Date.now();
    skew = status.time - heardAt / 1000;
    known.status = status;
    await learnMore(status);
    if (mine === turn) show();
  } catch (error) {
    if (mine === turn) miss(error);
  }
  if (mine === turn && !document.hidden && place("key").hidden) setTimeout(() => mine === turn && look(), EVERY);
}

// Ask for what is not asked for at every look, where it is time or a job moves it.
async function learnMore(status) {
  const began = status.job && status.job.id, due = began !== job || Date.now() - hourAt >= SLOW;
  job = began;
  const found = [];
  if (due || job || Date.now() - cardsAt >= CARDS) {
    cardsAt = Date.now();
    found.push(learn("gpus", () => ask("/gpus")));
  }
  if (due) {
    hourAt = Date.now();
    found.push(learn("history", async () => (await ask("/history?lines=100")).events), learn("samples", lastHour));
  }
  await Promise.all(found);
  hourIsNew = hourIsNew || due;
}

// What cannot be said is not known, and the rest of the page is shown all the same.
async function learn(name, find) {
  try {
    known[name] = await find();
  } catch (error) {
    if (error instanceof Refused) throw error;
    known[name] = null;
  }
}

async function lastHour() {
  const before = known.samples;
  // Only what is new, where the rest is known; a sample or two may come twice.
  const since = before && before.times.length ? now() - before.times.at(-1) : -1;
  const seconds = since < 0 ? HOUR : since + 3 * before.every_seconds;
  return joined(before, await ask(`/samples?seconds=${Math.min(HOUR, Math.ceil(Math.max(1, seconds)))}`));
}

// The samples of before that are of this hour and are not said anew, and then those of after.
function joined(before, after) {
  const first = after.times.length ? after.times[0] : Infinity, oldest = after.time - HOUR;
  const times = before ? before.times : [], from = times.findIndex((time) => time >= oldest);
  // What is later than now was seen by a clock that has been set back.
  const end = times.findIndex((time) => time >= first || time > after.time), upto = end < 0 ? times.length : end;
  const start = from < 0 ? upto : Math.min(from, upto);
  const old = new Map((before ? before.gpus : []).map((card) => [card.uuid, card]));
  const fresh = new Map(after.gpus.map((card) => [card.uuid, card]));
  const column = (card, name, count) => (card ? card[name] : Array(count).fill(null));
  const cards = [...new Map([...old, ...fresh]).values()].map((card) => {
    const columns = CHARTS.map(({ key: name }) => [name, [
      ...column(old.get(card.uuid), name, times.length).slice(start, upto),
      ...column(fresh.get(card.uuid), name, after.times.length),
    ]]);
    return { ...card, ...Object.fromEntries(columns) };
  });
  const there = cards.filter((card) => card.used_mib.some(isNumber));
  return { ...after, times: [...times.slice(start, upto), ...after.times], gpus: there };
}
