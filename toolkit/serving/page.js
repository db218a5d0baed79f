"use strict";
// Sends the form, and shows what both models answer, piece by piece. No library, no other host.
const form = document.getElementById("form");
const stop = document.getElementById("stop");
const problem = document.getElementById("problem");
const note = document.getElementById("note");
const settings = document.getElementById("settings");
const columns = document.querySelector(".columns");
const isNarrow = matchMedia("(max-width: 36rem)").matches; // a phone: the answers come first
const likeliest = document.getElementById("likeliest");
const facts = new WeakMap(); // of each token's element: what the server says of it, in a list
const zeroWidth = /^[\p{M}\p{Cf}]+$/u; // marks, joiners: nothing to point at, so part of the token before
const chat = "chat" in form.dataset; // the models have learned from conversations
const columnOf = (model) => document.getElementById(model);
let talks = {}; // what each model was told, and has answered
let request = null;
settings.open = !isNarrow;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
form.prompt.addEventListener("keydown", (event) => {
  const sends = event.ctrlKey || event.metaKey || (chat && !event.shiftKey && !event.isComposing);
  if (event.key !== "Enter" || !sends) return;
  event.preventDefault();
  form.requestSubmit();
});
document.getElementById("reset")?.addEventListener("click", () => {
  request?.abort();
  talks = {};
  for (const part of document.querySelectorAll(".columns .text, .columns .end")) part.textContent = "";
  form.prompt.focus();
});
stop.addEventListener("click", () => request.abort());
addEventListener("pagehide", () => request?.abort()); // else a page kept for "back" goes on
for (const button of document.querySelectorAll(".prompts button")) {
  button.addEventListener("click", () => (form.prompt.value = button.value));
}

async function generate() {
  if (request) return;
  const asked = {};
  for (const field of form.querySelectorAll("[name]")) {
    field.removeAttribute("aria-invalid");
    const number = field.type === "number";
    asked[field.name] = number ? (field.value === "" ? null : Number(field.value)) : field.value;
  }
  complain("");
  note.textContent = "";
  hide();
  request = new AbortController();
  busy(true);
  try {
    if (chat) converse(asked);
    const answer = await fetch(chat ? "answer" : "continue", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(asked),
      signal: request.signal,
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    for (const column of document.querySelectorAll(".columns .card")) begin(column, asked);
    if (isNarrow && !chat) columns.scrollIntoView();
    for await (const line of linesOf(answer.body)) show(JSON.parse(line));
  } catch (error) {
    if (error.name === "AbortError") end("stopped");
    else complain(error instanceof TypeError ? "the server does not answer" : error.message);
  }
  request = null;
  busy(false);
}

async function* linesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part; !(part = await reader.read()).done; ) {
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
}

function converse(asked) {
  const message = { role: "user", content: asked.prompt };
  delete asked.prompt;
  asked.talks = {};
  for (const { id } of document.querySelectorAll(".columns .card")) {
    asked.talks[id] = [...(talks[id] ?? []), message];
  }
}

function begin(column, asked) {
  const before = document.createElement("span");
  const text = column.querySelector(".text");
  before.className = "prompt";
  if (chat) {
    talks[column.id] = asked.talks[column.id];
    before.textContent = `${text.childNodes.length ? "\n\n" : ""}${talks[column.id].at(-1).content}\n`;
    talks[column.id].push({ role: "assistant", content: "" });
    form.prompt.value = "";
  } else {
    before.textContent = asked.prompt;
    text.replaceChildren();
  }
  text.append(before);
  column.querySelector(".end").textContent = "…";
}

function show(event) {
  if (event.note) return (note.textContent = event.note);
  const column = columnOf(event.model);
  const text = column.querySelector(".text");
  const last = text.lastElementChild;
  if (chat) talks[event.model].at(-1).content += event.text;
  if (event.text && facts.has(last) && zeroWidth.test(event.text)) {
    last.textContent += event.text;
    facts.get(last).push(event);
    const joint = facts.get(last).reduce((product, fact) => product * fact.probability, 1);
    last.style.setProperty("--surprising", surprising(joint));
  } else if (event.text) {
    const token = document.createElement("span");
    token.className = "token";
    token.textContent = event.text;
    token.style.setProperty("--surprising", surprising(event.probability));
    token.tabIndex = text.children.length === 1 ? 0 : -1; // one stop for Tab, then arrow keys
    facts.set(token, [event]);
    text.append(token);
  }
  if (event.finish === "error") complain("the server failed to generate");
  const why = { stop: "ended", length: "the limit", error: "failed" }[event.finish];
  const ending = event.tokens || !why ? `${event.tokens} tokens, ${why}` : "ended at once: no text";
  if (why) column.querySelector(".end").textContent = ending;
}

function surprising(probability) {
  return Math.min(1, Math.max(0, -Math.log10(probability) / 3)); // 0 of what was certain, 1 from a thousandth on
}

function end(why) {
  for (const mark of document.querySelectorAll(".end")) {
    if (mark.textContent === "…") mark.textContent = why;
  }
}

function busy(working) {
  form.querySelector("[type=submit]").disabled = working;
  stop.disabled = !working;
}

function complain(message) {
  problem.textContent = message;
  const field = form.elements[message.split(/[ :]/)[0]];
  field?.setAttribute("aria-invalid", "true");
  if (field?.closest("details")) settings.open = true;
  if (message) end("");
}

// The likeliest tokens, for the mouse, the finger and the keyboard

// A finger, too, hovers for a moment and is gone: only a mouse shows by hovering, and hides by leaving.
const byMouse = (act) => (event) => event.pointerType === "mouse" && act(event.target);
columns.addEventListener("pointerover", byMouse(explain));
columns.addEventListener("pointerleave", byMouse(hide));
columns.addEventListener("focusin", (event) => explain(event.target));
columns.addEventListener("click", (event) => explain(event.target));
columns.addEventListener("focusout", hide);
document.addEventListener("click", (event) => columns.contains(event.target) || hide());
columns.addEventListener("keydown", (event) => {
  const steps = ["nextElementSibling", "previousElementSibling"];
  if (getComputedStyle(event.target.parentElement).direction === "rtl") steps.reverse();
  const step = { ArrowRight: steps[0], ArrowLeft: steps[1] }[event.key];
  const next = step && event.target[step];
  if (facts.has(next)) next.focus();
  if (step) event.preventDefault();
  if (event.key === "Escape") hide();
});

function explain(token) {
  if (!facts.has(token)) return hide();
  likeliest.replaceChildren(...facts.get(token).map(tableOf));
  likeliest.hidden = false;
  const place = token.getClientRects()[0];
  const room = document.documentElement.clientWidth - likeliest.offsetWidth - 8;
  likeliest.style.left = `${Math.max(8, Math.min(place.left, room)) + scrollX}px`;
  const below = place.bottom + 6;
  const fits = below + likeliest.offsetHeight < innerHeight;
  likeliest.style.top = `${(fits ? below : place.top - 6 - likeliest.offsetHeight) + scrollY}px`;
}

function tableOf(fact) {
  const table = document.createElement("table");
  table.append(...fact.likeliest.map(row));
  return table;
}

function row([text, share, chosen]) {
  const line = document.createElement("tr");
  line.className = chosen ? "chosen" : "";
  const shown = text.replaceAll(" ", "␣").replaceAll("\n", "↵") || "end of text";
  const percent = share >= 0.0001 ? `${(share * 100).toFixed(2)}%` : "< 0.01%";
  for (const content of [shown, percent]) {
    line.appendChild(document.createElement("td")).textContent = content;
  }
  return line;
}

function hide() {
  likeliest.hidden = true;
}
