// SVG charts. `el` makes an SVG element; a chart calls `pick(kernel)` when one of its marks is chosen.
function el(name, attributes = {}, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [k, v] of Object.entries(attributes)) if (v !== null && v !== undefined) e.setAttribute(k, v);
  e.append(...children);
  return e;
}
const chart = (w, h, ...children) => el("svg", {class: "chart", viewBox: `0 0 ${w} ${h}`}, ...children);

function seconds(s) {
  for (const [unit, scale] of [["s", 1], ["ms", 1e-3], ["µs", 1e-6]]) {
    if (s >= scale) return `${(s / scale).toPrecision(3)} ${unit}`;
  }
  return `${Math.round(s * 1e9)} ns`;
}
function bytes(n) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (n < 1024) return `${unit === "B" ? n : n.toFixed(1)} ${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(2)} GiB`;
}
const count = n => n >= 1e9 ? `${(n / 1e9).toPrecision(3)} G` : n >= 1e6 ? `${(n / 1e6).toPrecision(3)} M`
  : n >= 1e3 ? `${(n / 1e3).toPrecision(3)} k` : `${n}`;

function mark(shape, attributes, kernel, text) {
  const host = kernel === null || kernel === undefined || kernel < 0;
  const m = el(shape, {...attributes, class: host ? "mark host" : "mark", style: host ? "" : tint(kernel),
    "data-kernel": host ? null : kernel});
  tip(m, text);
  if (!host) m.addEventListener("click", () => pick(kernel));
  return m;
}

// Log-log: operations a byte against GFLOP/s, under the measured ceilings.
function roofline(kernels, machine) {
  const W = 620, H = 400, L = 58, R = 16, T = 14, B = 42;
  const shown = kernels.map((k, i) => ({...k, i})).filter(k => k.flops > 0 && k.bytes > 0 && k.seconds > 0);
  if (!shown.length) return chart(W, 40, el("text", {x: 8, y: 24}, "no kernel with arithmetic was measured"));
  const xs = shown.map(k => k.flops / k.bytes), ys = shown.map(k => k.gflops);
  const span = (low, high) => [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const ridge = machine.gflops / machine.gbytes.memory;
  const [x0, x1] = span(Math.min(...xs, .1), Math.max(...xs, 2 * ridge));
  const [y0, y1] = span(Math.min(...ys, machine.gflops / 100), machine.gflops * 1.5);
  const X = v => L + (Math.log10(v) - x0) / (x1 - x0) * (W - L - R);
  const Y = v => H - B - (Math.log10(v) - y0) / (y1 - y0) * (H - T - B);
  const g = chart(W, H);
  for (let e = x0; e <= x1; e++) {
    g.append(el("line", {class: "axis", x1: X(10 ** e), x2: X(10 ** e), y1: T, y2: H - B}),
      el("text", {x: X(10 ** e), y: H - B + 16, "text-anchor": "middle"}, `${+(10 ** e).toPrecision(1)}`));
  }
  for (let e = y0; e <= y1; e++) {
    g.append(el("line", {class: "axis", x1: L, x2: W - R, y1: Y(10 ** e), y2: Y(10 ** e)}),
      el("text", {x: L - 6, y: Y(10 ** e) + 4, "text-anchor": "end"}, `${+(10 ** e).toPrecision(1)}`));
  }
  g.append(el("text", {x: (L + W - R) / 2, y: H - 6, "text-anchor": "middle"}, "operations per byte"),
    el("text", {x: 12, y: (T + H - B) / 2, "text-anchor": "middle",
      transform: `rotate(-90 12 ${(T + H - B) / 2})`}, "GFLOP/s"));
  const inside = el("clipPath", {id: "plot"}, el("rect", {x: L, y: T, width: W - L - R, height: H - T - B}));
  g.append(inside);
  for (const [name, speed] of Object.entries(machine.gbytes)) {
    const bend = machine.gflops / speed, low = 10 ** x0;
    g.append(el("path", {class: name === "memory" ? "roof" : "roof second", "clip-path": "url(#plot)",
      d: `M${X(low)} ${Y(low * speed)}L${X(bend)} ${Y(machine.gflops)}H${W - R}`}));
    const at = Math.max(low * 1.25, 10 ** y0 / speed * 1.6);
    const angle = Math.atan2(Y(at * speed) - Y(at * 10 * speed), X(at * 10) - X(at)) * -180 / Math.PI;
    g.append(el("text", {x: X(at), y: Y(at * speed) - 6,
      transform: `rotate(${angle} ${X(at)} ${Y(at * speed) - 6})`}, `${name} ${speed.toFixed(0)} GB/s`));
  }
  g.append(el("text", {x: W - R - 4, y: Y(machine.gflops) - 6, "text-anchor": "end"},
    `peak ${machine.gflops.toFixed(0)} GFLOP/s`));
  const largest = [...shown].sort((a, b) => b.share - a.share);
  for (const k of largest) {
    g.append(mark("circle", {cx: X(k.flops / k.bytes), cy: Y(k.gflops), r: 4 + 16 * Math.sqrt(k.share)}, k.i,
      `${k.name}\n${seconds(k.seconds)} a call, ${(100 * k.share).toFixed(1)} % of the time\n`
      + `${k.gflops.toFixed(1)} GFLOP/s, ${(100 * k.of_limit).toFixed(0)} % of its limit (${k.bound})`));
  }
  return g;
}

// Rectangles: statements to the right, bytes upwards.
function memoryPlan(memory) {
  const W = 620, H = 400, L = 70, R = 12, T = 14, B = 34;
  const all = memory.buffers;
  if (!all.length) return chart(W, 40, el("text", {x: 8, y: 24}, "no tensors are kept between kernels"));
  const first = Math.min(...all.map(b => b.first)), last = Math.max(...all.map(b => b.last)) + 1;
  const top = Math.max(...all.map(b => b.offset + b.size), 1);
  const X = t => L + (t - first) / (last - first) * (W - L - R), Y = b => H - B - b / top * (H - T - B);
  const g = chart(W, H);
  for (let k = 0; k <= 4; k++) {
    const at = top * k / 4;
    g.append(el("line", {class: "axis", x1: L, x2: W - R, y1: Y(at), y2: Y(at)}),
      el("text", {x: L - 6, y: Y(at) + 4, "text-anchor": "end"}, bytes(Math.round(at))));
  }
  g.append(el("text", {x: (L + W - R) / 2, y: H - 8, "text-anchor": "middle"}, "time: calls of the host program"));
  for (const b of all) {
    const step = Object.entries(memory.steps).find(([t]) => +t >= b.first);
    g.append(mark("rect", {x: X(b.first), y: Y(b.offset + b.size), rx: 2,
      width: Math.max(X(b.last + 1) - X(b.first) - 1, 1), height: Math.max(Y(b.offset) - Y(b.offset + b.size) - 1, 1)},
      step ? step[1].kernel : null, `${b.type}\n${bytes(b.size)} at ${bytes(b.offset)}`
      + (step ? `\nwritten by ${step[1].name}` : "")));
  }
  return g;
}

// The kernels of one run, one after another.
function timelineChart(spans, kernels) {
  const W = 1400, H = 96, L = 8, R = 8, T = 8, B = 26;
  if (!spans.length) return chart(W, 40, el("text", {x: 8, y: 24}, "nothing was measured"));
  const end = Math.max(...spans.map(s => s.end)), X = t => L + t / end * (W - L - R);
  const g = chart(W, H);
  g.style.minWidth = "700px";
  const step = 10 ** Math.floor(Math.log10(end / 4)), every = [1, 2, 5, 10].map(k => k * step).find(v => end / v <= 8);
  for (let t = 0; t <= end; t += every) {
    g.append(el("line", {class: "axis", x1: X(t), x2: X(t), y1: T, y2: H - B + 4}),
      el("text", {x: X(t), y: H - 8, "text-anchor": t ? "middle" : "start"}, t ? seconds(t / 1e9) : "0"));
  }
  for (const s of spans) {
    const w = X(s.end) - X(s.start), name = s.kernel < 0 ? "host program" : kernels[s.kernel].name;
    g.append(mark("rect", {x: X(s.start), y: T, width: Math.max(w - .6, .6), height: H - T - B, rx: 2}, s.kernel,
      `${name}\n${seconds((s.end - s.start) / 1e9)}, from ${seconds(s.start / 1e9)}`));
    if (w > 7.2 * name.length) {
      g.append(el("text", {class: "tag", x: X(s.start) + 6, y: T + (H - T - B) / 2 + 4, "pointer-events": "none"}, name));
    }
  }
  return g;
}
