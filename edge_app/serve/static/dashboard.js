// Keeps the page up to date. All numbers come as HTML from the program; without this script the page
// shows those of the moment at which it was loaded.
"use strict";

const $$ = (id) => document.getElementById(id);
const page = document.documentElement;

// --- what has changed ----------------------------------------------------------------------------

const heard = { at: 0 };

function listen() {
  const events = new EventSource("/events");
  events.onmessage = (message) => {
    const news = JSON.parse(message.data);
    heard.at = performance.now();
    for (const [name, html] of Object.entries(news.panels)) {
      const panel = document.querySelector('[data-panel="' + name + '"]');
      if (panel) panel.innerHTML = html;
      if (name === "announce") document.title = panel.textContent + " - edge-app";
    }
    if (window.charts) window.charts.add(news.point, news.marks);
  };
}

function watchConnection() {
  const lost = performance.now() - heard.at > 4000;
  page.classList.toggle("lost", lost);
  $$("link").hidden = !lost;
}

// --- the picture -----------------------------------------------------------------------------------

const shown = { at: 0, age: 0 };

async function showPicture() {
  if (document.hidden) return 500;
  const response = await fetch("/picture.jpg", { signal: AbortSignal.timeout(5000) });
  if (!response.ok) return 1000;
  const frame = JSON.parse(response.headers.get("X-Frame"));
  const blob = await response.blob();
  shown.at = performance.now();
  shown.age = frame.age_s;
  if (frame.seq === shown.seq) return 200;
  shown.seq = frame.seq;
  const picture = $$("picture");
  const before = picture.src;
  picture.src = URL.createObjectURL(blob);
  await picture.decode().catch(() => undefined);
  if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  picture.classList.toggle("small", picture.naturalWidth < 400);
  picture.hidden = $$("answer").hidden = false;
  $$("label").textContent = frame.label;
  $$("probability").textContent = (100 * frame.probability).toFixed(0) + " %";
  $$("picture-level").textContent = frame.bits + " bits";
  return 120;
}

async function showPictures() {
  let wait = 1000;
  try {
    wait = await showPicture();
  } catch {
    // The badge tells how old the picture is, and the header that there is no connection.
  }
  setTimeout(showPictures, wait);
}

function showAge() {
  if (!shown.at) return;
  const age = shown.age + (performance.now() - shown.at) / 1000;
  const text = age < 1 ? (1000 * age).toFixed(0) + " ms" : age < 100 ? age.toFixed(1) + " s" : (age / 60).toFixed(0) + " min";
  $$("age").textContent = text + " old";
  $$("age").classList.toggle("old", age > 2);
}

// --- what if, and the policy -------------------------------------------------------------------------

async function ask(event) {
  event.preventDefault();
  const form = event.target;
  const button = form.querySelector("button");
  const answer = $$("what-if-answer");
  button.disabled = true;
  answer.textContent = "The simulator runs.";
  try {
    const fields = new URLSearchParams(new FormData(form));
    const response = await fetch("/what-if?" + fields, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(await response.text());
    const report = await response.json();
    answer.innerHTML = report.html;
    if (window.charts) window.charts.compare(report.runs);
  } catch (error) {
    answer.textContent = error.message;
    answer.classList.add("error");
    setTimeout(() => answer.classList.remove("error"), 4000);
  }
  button.disabled = false;
}

async function reload(event) {
  event.preventDefault();
  const token = new FormData(event.target).get("token");
  try {
    const response = await fetch("/-/reload", {
      method: "POST",
      headers: { Authorization: "Bearer " + token },
    });
    $$("reload-answer").textContent = await response.text();
  } catch (error) {
    $$("reload-answer").textContent = error.message;
  }
}

// --- theme and keys --------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];

function setTheme(name) {
  if (name === "auto") page.removeAttribute("data-theme");
  else page.setAttribute("data-theme", name);
  $$("theme").textContent = "Theme: " + name;
  try {
    localStorage.setItem("theme", name);
  } catch {
    // A browser that stores nothing forgets it.
  }
  if (window.charts) window.charts.redraw();
}

function theme() {
  try {
    return THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto";
  } catch {
    return page.getAttribute("data-theme") || "auto";
  }
}

const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);

function key(event) {
  const typing = event.target.closest("input, select, textarea");
  if (typing || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "t" || event.key === "T") nextTheme();
  const spans = document.querySelectorAll(".spans:not([hidden]) button");
  const span = spans[Number(event.key) - 1];
  if (span) span.click();
}

function start() {
  for (const id of ["theme", "reload", "keys"]) $$(id).hidden = false;
  $$("history").open = page.dataset.curves !== "yes";
  if (page.dataset.curves !== "yes") $$("keys").textContent = "Key: T changes the theme.";
  $$("theme").addEventListener("click", nextTheme);
  $$("what-if").addEventListener("submit", ask);
  $$("reload").addEventListener("submit", reload);
  document.addEventListener("keydown", key);
  setTheme(theme());
  heard.at = performance.now();
  listen();
  showPictures();
  setInterval(showAge, 100);
  setInterval(watchConnection, 500);
}

start();
