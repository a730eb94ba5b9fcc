"use strict";
const by = (id) => document.getElementById(id);
const state = { history: [], k: 10, unseen: true, status: null, examples: [], example: null, asked: 0 };

/* an id of 16 digits or more becomes text, by which the server knows it, too: a number here would lose its last digits */
function read(text) {
  return JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g,
    (token) => /^-?\d{16,}$/.test(token) ? `"${token}"` : token));
}

async function call(path, body) {
  const headers = {};
  const key = sessionStorage.getItem("key");
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const value = read(await answer.text());
  if (answer.status === 401) by("key-form").hidden = false;
  if (!answer.ok) throw new Error(value.detail || answer.statusText);
  const timing = /dur=([\d.]+)/.exec(answer.headers.get("server-timing") || "");
  return { value, milliseconds: timing ? Number(timing[1]) : null };
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function say(text) { by("said").textContent = text; }

/* the address holds the whole state, so that it can be shared; ids keep their type by being JSON */
function writeAddress() {
  const parameters = new URLSearchParams();
  for (const item of state.history) parameters.append("item", JSON.stringify(item.id));
  if (state.k !== 10) parameters.set("k", state.k);
  if (!state.unseen) parameters.set("seen", "1");
  const text = parameters.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

async function readAddress() {
  const parameters = new URLSearchParams(location.search);
  const k = Number(parameters.get("k"));
  if ([...by("k").options].some((option) => Number(option.value) === k)) state.k = k;
  state.unseen = parameters.get("seen") !== "1";
  by("k").value = String(state.k);
  by("unseen").checked = state.unseen;
  for (const text of parameters.getAll("item").slice(0, 100)) {
    try {
      const item = await call(`/v1/items/${encodeURIComponent(read(text))}`);
      state.history.push(item.value);
    } catch (error) { say(`The address names an item that is not here: ${text}`); }
  }
}

function changed(text) {
  state.example = null;
  refresh();
  if (text) say(text);
}

function add(item) {
  state.history.push(item);
  changed(`${item.title} added`);
}

function move(place, to) {
  const [item] = state.history.splice(place, 1);
  state.history.splice(to, 0, item);
  changed(`${item.title} is now number ${to + 1}`);
  const button = by("history").children[to].querySelector(to < place ? ".earlier" : ".later");
  (button.disabled ? by("history").children[to].querySelector(".remove") : button).focus();
}

function remove(place) {
  const [item] = state.history.splice(place, 1);
  changed(`${item.title} removed`);
  const next = by("history").children[Math.min(place, state.history.length - 1)];
  (next ? next.querySelector(".remove") : by("search")).focus();
}

function small(text, label, name, click, disabled = false) {
  const button = element("button", { type: "button", textContent: text, className: `small ${name}`, disabled });
  button.setAttribute("aria-label", label);
  button.addEventListener("click", click);
  return button;
}

function drawHistory() {
  by("history").replaceChildren(...state.history.map((item, place) => element("li", { className: "item" },
    element("span", { className: "place", textContent: place + 1 }),
    element("span", { className: "title", textContent: item.title }),
    small("↑", `Move ${item.title} earlier`, "earlier", () => move(place, place - 1), place === 0),
    small("↓", `Move ${item.title} later`, "later", () => move(place, place + 1), place === state.history.length - 1),
    small("×", `Remove ${item.title}`, "remove", () => remove(place)))));
  const none = state.history.length === 0;
  by("empty").hidden = !none;
  by("clear").hidden = by("share").hidden = none;
  const example = state.example;
  by("truth").hidden = !example;
  if (example) {
    const facts = [["What came next", example.next.title]];
    if (example.wrote !== null) facts.push(["What the language model wrote", example.wrote || "(nothing)"]);
    by("truth").replaceChildren(...facts.flatMap(([name, text]) =>
      [element("dt", { textContent: name }), element("dd", { textContent: text })]));
  }
}

function moved(id, place, other) {
  if (!other) return element("span", { className: "move" });
  const before = other.items.indexOf(id);
  if (before === place) return element("span", { className: "move", textContent: "same" });
  if (before < 0) return element("span", { className: "move up", textContent: "only here" });
  const up = before > place;
  const made = element("span", { className: `move ${up ? "up" : "down"}`, textContent: `${up ? "▲" : "▼"} ${Math.abs(before - place)}` });
  made.setAttribute("aria-label", `${Math.abs(before - place)} places ${up ? "higher" : "lower"} than in the other list`);
  return made;
}

function drawList(name, answer, other) {
  const { result, milliseconds } = answer;
  const note = by(`${name}-note`);
  note.className = "note";
  note.textContent = (result.fallback ? "The most popular items: nothing of the history is known. " : "")
    + (milliseconds === null ? "" : `answered in ${milliseconds.toFixed(2)} ms`);
  by(`${name}-items`).replaceChildren(...result.items.map((id, place) => element("li",
    { className: state.example && state.example.next.id === id ? "item next" : "item" },
    element("span", { className: "place", textContent: place + 1 }),
    element("span", { className: "title", textContent: result.titles[place] }),
    moved(id, place, other && other.result),
    small("+", `Add ${result.titles[place]} to the history`, "add", () => add({ id, title: result.titles[place] })))));
}

/* while an answer is awaited, what is shown belongs to an earlier history */
function busy(waiting) {
  for (const name of ["main-items", "compare-items"]) by(name).setAttribute("aria-busy", String(waiting));
}

async function refresh() {
  drawHistory();
  writeAddress();
  busy(true);
  const asked = ++state.asked;
  const body = { histories: [state.history.map((item) => item.id)], k: state.k, exclude_seen: state.unseen };
  const paths = state.status.compare === null ? ["/v1/recommend"] : ["/v1/recommend", "/v1/recommend?model=compare"];
  try {
    const answers = [];
    for (const path of paths) { // one after the other, or the times would not compare
      const { value, milliseconds } = await call(path, body);
      answers.push({ result: value.results[0], milliseconds });
    }
    if (asked !== state.asked) return;
    drawList("main", answers[0], answers[1]);
    if (answers[1]) drawList("compare", answers[1], answers[0]);
  } catch (error) {
    if (asked !== state.asked) return;
    by("main-note").textContent = error.message;
    by("main-note").className = "note bad";
  }
  busy(false);
}

/* the list under the search field */
let options = [], chosen = -1, timer = 0;

function closeFound() {
  by("found").hidden = true;
  by("search").setAttribute("aria-expanded", "false");
  by("search").removeAttribute("aria-activedescendant");
  options = [];
  chosen = -1;
}

function choose(place) {
  chosen = place;
  [...by("found").children].forEach((option, row) => option.setAttribute("aria-selected", String(row === place)));
  by("search").setAttribute("aria-activedescendant", `option-${place}`);
  by("found").children[place].scrollIntoView({ block: "nearest" });
}

function take(place) {
  const item = options[place];
  by("search").value = "";
  closeFound();
  add(item);
  by("search").focus();
}

async function find() {
  const text = by("search").value.trim();
  if (!text) { closeFound(); return; }
  let found;
  try {
    found = (await call(`/v1/items?k=10&query=${encodeURIComponent(text)}`)).value.items;
  } catch (error) { say(error.message); return; }
  if (by("search").value.trim() !== text) return;
  options = found;
  chosen = -1;
  by("found").replaceChildren(...(found.length ? found.map((item, row) => {
    const option = element("li", { id: `option-${row}`, textContent: item.title });
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", "false");
    option.addEventListener("pointerdown", (event) => { event.preventDefault(); take(row); });
    return option;
  }) : [element("li", { textContent: "No title holds that" })]));
  by("found").hidden = false;
  by("search").setAttribute("aria-expanded", "true");
  say(`${found.length} found`);
}

by("search").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(find, 120); });
by("search").addEventListener("blur", closeFound);
by("search").addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeFound();
  if (!options.length) return;
  if (event.key === "ArrowDown") choose((chosen + 1) % options.length);
  else if (event.key === "ArrowUp") choose((chosen - 1 + options.length) % options.length);
  else if (event.key === "Enter") take(Math.max(chosen, 0));
  else return;
  event.preventDefault();
});
by("k").addEventListener("change", () => { state.k = Number(by("k").value); refresh(); });
by("unseen").addEventListener("change", () => { state.unseen = by("unseen").checked; refresh(); });
by("clear").addEventListener("click", () => { state.history = []; changed("Cleared"); by("search").focus(); });
by("share").addEventListener("click", async () => {
  try { await navigator.clipboard.writeText(location.href); say("Address copied"); by("share").textContent = "Copied"; }
  catch (error) { say("The browser does not allow it; the address is in its address bar"); }
  setTimeout(() => { by("share").textContent = "Copy the address"; }, 2000);
});
by("example").addEventListener("click", () => {
  const next = state.examples.shift();
  state.examples.push(next);
  state.history = [...next.history];
  state.example = next;
  refresh();
});
by("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", by("key").value);
  by("key-form").hidden = true;
  start();
});

async function start() {
  state.history = [];
  try {
    const status = (await call("/ready")).value;
    state.status = status;
    by("about").textContent = `${status.student} over ${status.num_items.toLocaleString("en")} items`
      + (status.compare === null ? "" : `, beside ${status.compare}`);
    by("main-title").textContent = status.student;
    by("compare").hidden = status.compare === null;
    by("compare-title").textContent = status.compare || "";
    by("version").textContent = `bundle ${status.version}`;
    state.examples = (await call("/v1/examples")).value.examples;
    by("example").hidden = by("or-example").hidden = state.examples.length === 0;
    await readAddress();
    await refresh();
  } catch (error) { by("about").textContent = error.message; }
}
start();
