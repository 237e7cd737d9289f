// What people do, and the first look.

// What it is called it says with its first answer.
place("host").textContent = host;

place("key").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = place("key-text").value.trim();
  place("key-text").value = "";
  // No header takes anything else, and it would look as if nobody answered.
  if (!/^[\x21-\x7e]+$/.test(text)) {
    place("key-why").textContent = "That is no key: it has other characters.";
    return;
  }
  keep(text);
  place("key").hidden = true;
  look();
});
place("forget").addEventListener("click", () => { keep(null); look(); });

place("hour").addEventListener("pointermove", (event) => {
  const plot = event.target.closest(".plot");
  if (!plot) return;
  const box = plot.getBoundingClientRect();
  pointAt((event.clientX - box.left) / box.width);
});
for (const end of ["pointerleave", "blur"]) place("hour").addEventListener(end, () => pointAt(null));
place("hour").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || !charted) return;
  event.preventDefault();
  pointAt((pointed === null ? 1 : pointed) + (step * charted.said.every_seconds) / HOUR);
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !place("key").hidden) return;
  // What was seen before the page was looked away from is no more so.
  place("main").classList.toggle("asking", Date.now() - heardAt > 1000 * OLD);
  look();
});

try { key = sessionStorage.getItem(STORED); } catch { /* a browser that keeps nothing */ }
look();
