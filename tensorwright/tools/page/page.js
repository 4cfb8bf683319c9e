// Puts the parts of the page together and keeps them showing the same kernel.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const html = (name, attributes = {}, ...children) => {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
};
const state = {level: "kernels", colour: "family", zoom: 0, open: new Set(), picked: null,
  sort: "share", down: true};

// ---- colours and hints -----------------------------------------------------------------------
const families = new Map();
const family = name => name.replace(/_\d+$/, "");
for (const k of data.kernels) if (!families.has(family(k.name))) families.set(family(k.name), families.size);
const hue = i => (25 + 137.5 * families.get(family(data.kernels[i].name))) % 360;
const tint = i => `--h:${hue(i).toFixed(0)}`;
const hottest = Math.max(...data.kernels.map(k => k.share), 1e-9);

function tip(element, text) {
  element.addEventListener("pointerenter", () => { $("tip").textContent = text; $("tip").hidden = false; });
  element.addEventListener("pointermove", e => {
    const t = $("tip"), x = Math.min(e.clientX + 14, innerWidth - t.offsetWidth - 8);
    t.style.left = `${Math.max(x, 8)}px`;
    t.style.top = `${e.clientY + 18 + t.offsetHeight > innerHeight ? e.clientY - t.offsetHeight - 10 : e.clientY + 18}px`;
  });
  element.addEventListener("pointerleave", () => { $("tip").hidden = true; });
}

// ---- head ------------------------------------------------------------------------------------
function head() {
  const row = name => (data.summary.rows.find(r => r[0] === name) || ["", ""])[1];
  $("subtitle").textContent = `${row("target")} · ${data.machine.processor}`;
  for (const [name, value, more] of data.summary.tiles) {
    $("tiles").append(html("div", {class: "tile"}, html("span", {}, name), html("b", {}, value), html("span", {}, more)));
  }
  const facts = [...data.summary.rows.filter(([n]) => ["input", "output", "size", ""].includes(n)),
    ["shown for", data.summary.inputs.join(", ")]];
  for (const [name, value] of facts) $("facts").append(html("dt", {}, name), html("dd", {}, value));
}

// ---- graph -----------------------------------------------------------------------------------
const clip = (text, n) => text.length > n ? text.slice(0, n - 1) + "…" : text;
const isOpen = n => n.ops.length > 1 && state.open.has(n.id);

function boxSize(n) {
  const lines = [n.label, n.sub, ...(isOpen(n) ? n.ops.map(o => "  " + o) : [])];
  const widest = Math.max(...lines.map(l => Math.min(l.length, 46)));
  const rows = (n.sub ? 1 : 0) + (isOpen(n) ? n.ops.length : 0) + (n.ops.length > 1 ? 1 : 0);
  return {w: Math.max(92, 7.3 * widest + 24), h: 28 + 16 * rows + (n.kernel === null ? 0 : 5)};
}

function drawBox({node: n, x, y, w, h}) {
  const kernel = n.kernel === null ? null : data.kernels[n.kernel];
  const classes = ["box", kernel ? "" : "plain", kernel && state.colour === "time" ? "heat" : ""];
  const g = el("g", {class: classes.join(" "), transform: `translate(${x} ${y})`, "data-kernel": n.kernel, "data-id": n.id});
  if (kernel) g.style.cssText = `${tint(n.kernel)};--heat:${Math.round(55 * kernel.share / hottest)}%`;
  g.append(el("rect", {class: "body", width: w, height: h, rx: 8}), el("text", {x: 12, y: 19}, clip(n.label, 46)));
  let line = 35;
  if (n.sub) { g.append(el("text", {class: "sub", x: 12, y: line}, clip(n.sub, 46))); line += 16; }
  if (n.ops.length > 1) {
    const more = el("text", {class: "more", x: 12, y: line}, isOpen(n) ? "▾ operators" : `▸ ${n.ops.length} operators`);
    more.addEventListener("click", e => { e.stopPropagation(); toggle(n.id); });
    g.append(more);
    line += 16;
  }
  for (const op of isOpen(n) ? n.ops : []) {
    g.append(el("text", {class: "op", x: 20, y: line}, clip(op, 46)));
    line += 16;
  }
  if (kernel) g.append(el("rect", {class: "share", x: 12, y: h - 6, height: 2.5, rx: 1,
    width: Math.max((w - 24) * kernel.share / hottest, 1)}));
  tip(g, [n.name && n.name !== n.label ? `${n.label} → ${n.name}` : n.label, ...n.source, ...n.weights.map(x => `weights: ${x}`),
    ...(kernel ? [`${(100 * kernel.share).toFixed(1)} % of the time`] : [])].join("\n"));
  g.addEventListener("click", () => { if (!dragged) pick(n.kernel, n); });
  return g;
}

let drawn = null;
function drawGraph() {
  const nodes = data.graphs[state.level];
  drawn = layout(nodes, boxSize);
  const svg = el("svg", {viewBox: `0 0 ${drawn.width} ${drawn.height}`});
  for (const e of drawn.edges) {
    let d = `M${e.points[0]}`;
    for (let k = 1; k < e.points.length; k++) {
      const [x0, y0] = e.points[k - 1], [x1, y1] = e.points[k], middle = (y0 + y1) / 2;
      d += x0 === x1 ? `V${y1}` : `C${x0} ${middle} ${x1} ${middle} ${x1} ${y1}`;
    }
    svg.append(el("path", {class: "edge", d, "data-from": e.from, "data-to": e.to}));
  }
  svg.append(...drawn.boxes.map(drawBox));
  $("canvas").replaceChildren(svg);
  if (!state.zoom) fit();
  resize();
  const groups = data.graphs.model.filter(n => !n.input).length, calls = data.graphs.kernels.filter(n => n.kernel !== null).length;
  $("graphnote").textContent = state.level === "model"
    ? `The model as it was imported: ${groups} operators; those of one colour become kernels of one kind. Click one to see its kernel.`
    : `What runs: ${calls} kernel calls. The line under a kernel is its share of the time. Click for its text, schedule and machine code.`;
  $("expand").style.display = nodes.some(n => n.ops.length > 1) ? "" : "none";
  light();
}
function fit() {
  const c = $("canvas");
  state.zoom = Math.min(1, Math.max(.45, (c.clientWidth - 8) / drawn.width));
  requestAnimationFrame(() => { c.scrollLeft = (c.scrollWidth - c.clientWidth) / 2; });
}
function resize() {
  const svg = $("canvas").firstChild;
  svg.setAttribute("width", drawn.width * state.zoom);
  svg.setAttribute("height", drawn.height * state.zoom);
}
function toggle(id) {
  state.open.has(id) ? state.open.delete(id) : state.open.add(id);
  drawGraph();
}

let dragged = false;
function drag() {
  const c = $("canvas");
  let from = null;
  c.addEventListener("pointerdown", e => {
    if (e.pointerType !== "touch") from = [e.clientX + c.scrollLeft, e.clientY + c.scrollTop];
    dragged = false;
  });
  addEventListener("pointermove", e => {
    if (!from) return;
    const x = from[0] - e.clientX, y = from[1] - e.clientY;
    if (!dragged && Math.abs(x - c.scrollLeft) + Math.abs(y - c.scrollTop) < 5) return;
    dragged = true;
    c.classList.add("held");
    c.scrollTo({left: x, top: y, behavior: "instant"});
  });
  addEventListener("pointerup", () => { from = null; c.classList.remove("held"); });
  c.addEventListener("wheel", e => {
    if (!e.ctrlKey && !e.metaKey) return;
    e.preventDefault();
    zoomBy(e.deltaY < 0 ? 1.1 : 1 / 1.1);
  }, {passive: false});
}
function zoomBy(factor) {
  const c = $("canvas"), x = (c.scrollLeft + c.clientWidth / 2) / state.zoom, y = (c.scrollTop + c.clientHeight / 2) / state.zoom;
  state.zoom = Math.min(2.5, Math.max(.15, state.zoom * factor));
  resize();
  c.scrollLeft = x * state.zoom - c.clientWidth / 2;
  c.scrollTop = y * state.zoom - c.clientHeight / 2;
}

// ---- table -----------------------------------------------------------------------------------
const COLUMNS = [["kernel", "name"], ["calls", "calls"], ["a call", "seconds"], ["share", "share"], ["GFLOP/s", "gflops"],
  ["GB/s", "gbytes"], ["of its limit", "of_limit"], ["bound by", "bound"], ["computes", "sources"]];

function bar(value, kind) {
  const b = html("span", {class: "bar"}, html("i", {class: kind}));
  b.firstChild.style.width = `${Math.min(100, 100 * value)}%`;
  return b;
}
function tableRow(k, i) {
  const chip = html("span", {class: "chip"});
  chip.style.cssText = tint(i);
  const known = k.bound, reached = k.of_limit || 0;
  const kind = reached > .6 ? "good" : reached > .3 ? "warn" : "bad";
  const row = html("tr", {"data-kernel": i}, html("td", {class: "mono"}, chip, k.name), html("td", {}, `${k.calls}`),
    html("td", {}, k.calls ? seconds(k.seconds) : "–"), html("td", {}, `${(100 * k.share).toFixed(1)} %`, bar(k.share, "")),
    html("td", {}, known ? k.gflops.toFixed(1) : "–"), html("td", {}, known ? k.gbytes.toFixed(1) : "–"),
    html("td", {}, known ? `${(100 * reached).toFixed(0)} %` : "–", known ? bar(reached, kind) : ""), html("td", {}, k.bound || "–"),
    html("td", {class: "left"}, clip(k.sources.join(", "), 110)));
  row.addEventListener("click", () => pick(i));
  return row;
}
function drawTable() {
  const text = $("filter").value.toLowerCase();
  const key = i => { const v = data.kernels[i][state.sort]; return Array.isArray(v) ? v.join() : v ?? -1; };
  const order = [...data.kernels.keys()].filter(i => `${data.kernels[i].name} ${data.kernels[i].sources.join()}`.toLowerCase().includes(text));
  order.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : a - b) * (state.down ? -1 : 1));
  const heads = COLUMNS.map(([title, name]) => {
    const sorted = name === state.sort;
    const th = html("th", {class: `${name === "sources" ? "left" : ""} ${sorted ? "sorted" : ""}`}, title + (sorted ? (state.down ? " ↓" : " ↑") : ""));
    th.addEventListener("click", () => { state.down = sorted ? !state.down : name !== "name"; state.sort = name; drawTable(); });
    return th;
  });
  $("table").replaceChildren(html("thead", {}, html("tr", {}, ...heads)),
    html("tbody", {}, ...order.map(i => tableRow(data.kernels[i], i))));
  light();
}

// ---- detail ----------------------------------------------------------------------------------
function pick(kernel, node = null) {
  state.picked = kernel;
  state.node = node;
  light();
  if (kernel === null || kernel === undefined) return node && nodeDetail(node);
  kernelDetail(data.kernels[kernel]);
}
function light() {
  for (const e of document.querySelectorAll("[data-kernel]")) {
    e.classList.toggle("picked", state.picked !== null && +e.dataset.kernel === state.picked);
  }
  for (const e of document.querySelectorAll(".edge")) {
    const id = state.node ? `${state.node.id}` : null;
    e.classList.toggle("lit", id !== null && (e.dataset.from === id || e.dataset.to === id));
  }
}
function nodeDetail(n) {
  $("detail").replaceChildren(html("h2", {}, n.label), html("p", {class: "mono"}, n.sub), ...list("in the model", n.source));
  $("drawer").hidden = false;
}
const list = (title, items) => items.length
  ? [html("h3", {}, title), html("ul", {}, ...items.map(s => html("li", {}, s)))] : [];

function kernelDetail(k) {
  const number = (value, name) => html("div", {}, html("span", {}, name), value);
  const numbers = html("div", {class: "numbers"}, number(`${k.calls}`, "calls"), number(seconds(k.seconds), "a call"),
    number(`${(100 * k.share).toFixed(1)} %`, "of the time"));
  if (k.bound) {
    numbers.append(number(count(k.flops), "operations"), number(bytes(k.bytes), "must move"), number(`${k.gflops.toFixed(1)}`, "GFLOP/s"),
      number(`${(100 * k.of_limit).toFixed(0)} %`, `of its limit (${k.bound})`));
  }
  const pre = html("pre"), tabs = html("span", {class: "switch"});
  const show = async (name, text) => {
    for (const b of tabs.children) b.classList.toggle("on", b.textContent === name);
    pre.innerHTML = name === "program" ? coloured(text) : plainText(await unpack(text));
  };
  for (const [name, text] of [["program", k.text], ["LLVM", k.llvm], ["assembly", k.asm]]) {
    if (!text) continue;
    const b = html("button", {}, name);
    b.addEventListener("click", () => show(name, text));
    tabs.append(b);
  }
  $("detail").replaceChildren(html("h2", {}, k.name), numbers, ...list("computes", k.sources), ...list("schedule", k.schedule),
    html("h3", {}, "text"), tabs, pre);
  $("drawer").hidden = false;
  show("program", k.text);
}
const plainText = s => s.replace(/[&<>]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;"})[c]);
const WORDS = /(#.*)|\b(for|in|if|else|def|return|while)\b|\b(parallel|vector|unroll|serial|local|temp|out|aligned)\b|\b((?:f|i|u|bf)\d+|bool|index)\b|\b(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\b/g;
const coloured = s => plainText(s).replace(WORDS, (m, comment, word, kind, type, number) =>
  `<span class="${comment ? "c" : word ? "k" : kind ? "t" : type ? "t" : "n"}">${m}</span>`);

async function unpack(text) {
  const raw = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  return new Response(new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

// ---- switches and start ----------------------------------------------------------------------
function switches() {
  for (const id of ["level", "colour"]) {
    const show = () => { for (const b of $(id).children) b.classList.toggle("on", b.dataset.value === state[id]); };
    for (const b of $(id).children) b.addEventListener("click", () => {
      state[id] = b.dataset.value;
      if (id === "level") { state.zoom = 0; state.node = null; }
      show();
      drawGraph();
    });
    show();
  }
  for (const b of $("zoom").children) b.addEventListener("click", () => {
    if (b.dataset.value === "fit") { fit(); resize(); } else zoomBy(b.dataset.value === "in" ? 1.25 : .8);
  });
  $("expand").addEventListener("click", () => {
    const all = data.graphs[state.level].filter(n => n.ops.length > 1).map(n => n.id);
    state.open = state.open.size ? new Set() : new Set(all);
    $("expand").textContent = state.open.size ? "collapse all" : "expand all";
    drawGraph();
  });
  $("filter").addEventListener("input", drawTable);
  const close = () => { $("drawer").hidden = true; state.picked = null; state.node = null; light(); };
  $("close").addEventListener("click", close);
  addEventListener("keydown", e => { if (e.key === "Escape") close(); });
  $("theme").addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  });
}
function notes() {
  const m = data.machine, ridge = m.gflops / m.gbytes.memory;
  $("roofnote").textContent = `Ceilings measured on this machine with ${m.threads} thread${m.threads > 1 ? "s" : ""}. `
    + `The larger a dot, the more of the time; left of ${ridge.toFixed(0)} operations per byte memory is the limit.`;
  const total = Math.max(...data.memory.buffers.map(b => b.offset + b.size), 0);
  const sum = data.memory.buffers.reduce((s, b) => s + b.size, 0);
  $("memorynote").textContent = data.memory.buffers.length
    ? `${data.memory.buffers.length} tensors of ${bytes(sum)} share ${bytes(total)}.` + (data.memory.unknown ? ` ${data.memory.unknown} of unknown size are not drawn.` : "")
    : "Nothing outlives a kernel.";
  $("timenote").textContent = `The run of middle length, out of ${data.summary.runs}.`;
}
function decisions() {
  if (!data.decisions.length) {
    $("decided").append(html("p", {class: "note"}, "No pass recorded a decision."));
    return;
  }
  const rows = data.decisions.map(d => html("tr", {}, ...d.map(t => html("td", {class: "left"}, t))));
  $("decided").append(html("table", {}, html("thead", {}, html("tr", {},
    ...["about", "what", "decided", "why"].map(t => html("th", {class: "left"}, t)))), html("tbody", {}, ...rows)));
}

head();
notes();
switches();
drag();
$("roof").append(roofline(data.kernels, data.machine));
$("plan").append(memoryPlan(data.memory));
$("line").append(timelineChart(data.timeline, data.kernels));
decisions();
drawGraph();
drawTable();
