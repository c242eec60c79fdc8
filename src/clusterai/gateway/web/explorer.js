// The explorer: reads the gateway's public endpoints, and the event feed for what changes. Plain DOM, no library: text from
// the network is only ever set as textContent, so nothing that a peer says can become markup.
"use strict";

const MOST_ROWS = 25;
const REFRESH_MS = 3000;
const $ = (id) => document.getElementById(id);
const clai = (wei) => {
  const whole = Number(wei) / 1e9;
  return (whole !== 0 && Math.abs(whole) < 0.001 ? whole.toExponential(2) : whole.toLocaleString(undefined, { maximumFractionDigits: 4 })) + " CLAI";
};
const short = (hex) => hex.slice(0, 8) + "…" + hex.slice(-4);
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();

function cell(text, kind, title) {
  const td = document.createElement("td");
  if (text instanceof Node) td.append(text); else td.textContent = text;
  if (kind) td.className = kind;
  if (title) td.title = title;
  return td;
}

function rows(id, list, make, none) {
  const made = list.slice(0, MOST_ROWS).map((it) => {
    const tr = document.createElement("tr");
    tr.append(...make(it));
    return tr;
  });
  if (!made.length) {
    const tr = document.createElement("tr");
    tr.className = "empty";
    tr.append(cell(none));
    made.push(tr);
  }
  $(id).replaceChildren(...made);
}

async function get(path, key) {
  const answer = await fetch(path, { headers: key ? { authorization: "Bearer " + key } : {} });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail || body.error?.message || answer.statusText);
  return body;
}

function figures(status) {
  const shown = [
    ["block", status.block, "settled"], ["epoch", status.epoch, `${status.epoch_s} s each`],
    ["providers linked", status.providers_linked, "measured"], ["requests now", status.errands, "measured"],
    ["funded", clai(status.funded_wei), "settled"], ["charged", clai(status.charged_wei), "claimed"],
    ["refunded", clai(status.refunded_wei), "settled"],
  ];
  $("figures").replaceChildren(...shown.map(([name, value, label]) => {
    const box = document.createElement("div"), big = document.createElement("b"), small = document.createElement("span");
    box.className = "figure";
    big.textContent = value;
    small.textContent = `${name} · ${label}`;
    box.append(big, small);
    return box;
  }));
  $("health").textContent = status.reason || `ready · chain ${status.chain_id} · version ${status.version}`;
}

function node(it) {
  const kind = it.barred ? "bad" : it.state === "ready" ? "good" : "wait";
  const models = it.models.map((model) => model.name).join(", ") || "–";
  const prices = it.models.map((m) => `${m.name}: ${m.input_price_wei} / ${m.output_price_wei} wei a token in / out (claimed)`);
  return [
    cell(short(it.provider), "id", it.provider), cell(it.barred ? "convicted, barred" : it.state, kind),
    cell(models, "", prices.join("\n")), cell(clai(it.stake_wei), "n"),
    cell(it.first_token_s === undefined ? "–" : Math.round(it.first_token_s * 1000) + " ms", "n"),
    cell(it.running ?? "–", "n"),
    cell(it.channel ? clai(it.channel.vouchered_wei) : "–", "n"), cell(it.channel ? clai(it.channel.final_wei) : "–", "n"),
  ];
}

const EPOCH_KINDS = { cleared: "good", committed: "wait", convicted: "bad" };

function epoch(it) {
  return [
    cell(it.epoch, "n"), cell(short(it.provider), "id", it.provider), cell(it.state, EPOCH_KINDS[it.state] || "bad"),
    cell(it.detail?.audited ?? "–", "n"), cell(it.block ?? "–", "n"),
  ];
}

const receipts = new Map();

function receipt(it) {
  const open = document.createElement("button");
  open.className = "id";
  open.textContent = short(it.id);
  open.title = it.id;
  open.onclick = () => show(`/v1/clusterai/receipts/${it.id}`);
  return [
    cell(open), cell(short(it.provider), "id", it.provider),
    cell(`${it.input_units} + ${it.output_units}`, "n"), cell(clai(it.price_wei), "n"), cell(it.epoch, "n"),
  ];
}

async function show(path) {
  const box = $("detail");
  box.querySelector("pre").textContent = JSON.stringify(await get(path), null, 2);
  box.showModal();
}

const LOUD = new Set(["Convicted", "Slashed", "Barred", "Equivocated", "refund"]);

function happened(it) {
  if (it.kind === "receipt") {
    receipts.set(it.detail.id, it.detail);
    if (receipts.size > 4 * MOST_ROWS) receipts.delete(receipts.keys().next().value);
  }
  const li = document.createElement("li"), time = document.createElement("time"), what = document.createElement("span");
  time.textContent = clock(it.at_s);
  const who = it.detail.provider || it.detail.owner || it.detail.receiver || it.detail.account || "";
  const money = it.detail.price_wei ?? it.detail.amount_wei ?? it.detail.amount ?? it.detail.slashed;
  what.textContent = `${it.kind} ${who ? short(who) : ""}${money === undefined ? "" : " · " + clai(money)}`;
  if (LOUD.has(it.kind)) what.className = "bad";
  li.append(time, what);
  $("feed").prepend(li);
  while ($("feed").children.length > 200) $("feed").lastChild.remove();
}

let last = 0;
let refreshing = false;

async function refresh() {
  if (refreshing || document.hidden) return;
  refreshing = true;
  try {
    const [status, nodes, audits, events] = await Promise.all([
      get("/v1/clusterai/status"), get("/v1/clusterai/nodes"), get("/v1/clusterai/audits"), get(`/v1/clusterai/events?after=${last}`),
    ]);
    figures(status);
    rows("nodes", nodes.nodes, node, "No provider has registered yet: run `clusterai node join`, or `clusterai up` for a local network.");
    rows("audits", audits.epochs, epoch, "No epoch has been committed yet: ask for a completion and wait one epoch.");
    for (const it of events.events) {
      last = Math.max(last, it.seq);
      happened(it);
    }
    rows("receipts", [...receipts.values()].reverse(), receipt, "No receipt since this page was opened or the gateway started.");
  } catch (error) {
    $("health").textContent = `can't reach the gateway: ${error.message}; trying again`;
    last = 0;
    $("feed").replaceChildren();
    receipts.clear();
  } finally {
    refreshing = false;
  }
}

$("key-form").onsubmit = async (event) => {
  event.preventDefault();
  try {
    const it = await get("/v1/clusterai/account", $("key").value.trim());
    $("account").textContent = `credit ${clai(it.credit_wei)} · held ${clai(it.held_wei)} · charged ${clai(it.charged_wei)} · jobs ${clai(it.tabbed_wei)} · refunded ${clai(it.refunded_wei)}`;
  } catch (error) {
    $("account").textContent = error.message;
  }
};

refresh();
setInterval(refresh, REFRESH_MS);
