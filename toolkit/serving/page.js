"use strict";
// Sends the form, and shows what both models answer, piece by piece. No library, no other host.
const form = document.getElementById("form");
const stop = document.getElementById("stop");
const problem = document.getElementById("problem");
const likeliest = document.getElementById("likeliest");
const facts = new WeakMap(); // of each token's element: what the server says of it, in a list
const zeroWidth = /^[\p{M}\p{Cf}]+$/u; // marks, joiners: nothing to point at, so part of the token before
let request = null;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
form.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
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
  hide();
  request = new AbortController();
  busy(true);
  try {
    const answer = await fetch("continue", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(asked),
      signal: request.signal,
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    for (const column of document.querySelectorAll(".columns .card")) clear(column, asked.prompt);
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

function clear(column, prompt) {
  const before = document.createElement("span");
  before.className = "prompt";
  before.textContent = prompt;
  column.querySelector(".text").replaceChildren(before);
  column.querySelector(".end").textContent = "…";
}

function show(event) {
  const column = document.getElementById(event.model);
  const text = column.querySelector(".text");
  const last = text.lastElementChild;
  if (event.text && facts.has(last) && zeroWidth.test(event.text)) {
    last.textContent += event.text;
    facts.get(last).push(event);
    const share = facts.get(last).reduce((product, fact) => product * fact.probability, 1);
    last.style.setProperty("--share", share);
  } else if (event.text) {
    const token = document.createElement("span");
    token.className = "token";
    token.textContent = event.text;
    token.style.setProperty("--share", event.probability);
    token.tabIndex = text.children.length === 1 ? 0 : -1; // one stop for Tab, then arrow keys
    facts.set(token, [event]);
    text.append(token);
  }
  if (event.finish === "error") complain("the server failed to generate");
  const why = { stop: "ended", length: "the limit", error: "failed" }[event.finish];
  if (why) column.querySelector(".end").textContent = `${event.tokens} tokens, ${why}`;
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
  form.elements[message.split(/[ :]/)[0]]?.setAttribute("aria-invalid", "true");
  if (message) end("");
}

// The likeliest tokens, for the mouse, the finger and the keyboard

const columns = document.querySelector(".columns");
columns.addEventListener("mouseover", (event) => explain(event.target));
columns.addEventListener("focusin", (event) => explain(event.target));
columns.addEventListener("click", (event) => explain(event.target));
columns.addEventListener("mouseleave", hide);
columns.addEventListener("focusout", hide);
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
  likeliest.style.top = `${place.bottom + 6 + scrollY}px`;
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
