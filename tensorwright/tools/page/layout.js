// Layered drawing of a graph whose nodes come in order of computation.
// layout(nodes, size) -> {boxes: [{node, x, y, w, h}], edges: [{from, to, points}], width, height}
function layout(nodes, size) {
  const GAP_X = 26, GAP_Y = 38, PAD = 24;
  const rank = ranks(nodes);
  const items = new Map(nodes.map(n => [n.id, {...size(n), id: n.id, node: n, up: [], down: []}]));
  const edges = [], layers = [];
  const layer = r => (layers[r] ||= []);
  for (const n of nodes) layer(rank.get(n.id)).push(items.get(n.id));
  for (const n of nodes) for (const a of n.args) {
    const path = [items.get(a)];
    for (let r = rank.get(a) + 1; r < rank.get(n.id); r++) {
      const dummy = {w: 8, h: 0, up: [], down: [], dummy: true};
      layer(r).push(dummy);
      path.push(dummy);
    }
    path.push(items.get(n.id));
    for (let k = 1; k < path.length; k++) { path[k - 1].down.push(path[k]); path[k].up.push(path[k - 1]); }
    edges.push({from: a, to: n.id, path});
  }
  order(layers);
  place(layers, GAP_X);
  let y = PAD;
  for (const l of layers) {
    const tall = Math.max(...l.map(b => b.h), 0);
    for (const b of l) {
      if (b.dummy) b.h = tall;
      b.y = y + (tall - b.h) / 2;
    }
    y += tall + GAP_Y;
  }
  const all = layers.flat(), left = Math.min(...all.map(b => b.x)) - PAD;
  for (const b of all) b.x -= left;
  const width = Math.max(...all.map(b => b.x + b.w)) + PAD;
  for (const e of edges) e.points = e.path.flatMap((b, k) => {
    const x = b.x + b.w / 2;
    if (k === 0) return [[x, b.y + b.h]];
    return b.dummy ? [[x, b.y], [x, b.y + b.h]] : [[x, b.y]];
  });
  return {boxes: [...items.values()], edges, width, height: y - GAP_Y + PAD};
}

// The longest way from the start; what has no operands stands just above its first user.
function ranks(nodes) {
  const rank = new Map();
  for (const n of nodes) rank.set(n.id, n.args.length ? 1 + Math.max(...n.args.map(a => rank.get(a))) : 0);
  const first = new Map();
  for (const n of nodes) for (const a of n.args) {
    first.set(a, Math.min(first.get(a) ?? Infinity, rank.get(n.id)));
  }
  for (const n of nodes) if (!n.args.length && first.has(n.id)) rank.set(n.id, first.get(n.id) - 1);
  const least = Math.min(0, ...rank.values());
  for (const [id, r] of rank) rank.set(id, r - least);
  return rank;
}

// Fewer crossings: every layer in the order of the middle of its neighbours, down and up again.
function order(layers) {
  const number = () => layers.forEach(l => l.forEach((b, k) => (b.k = k)));
  number();
  for (let sweep = 0; sweep < 8; sweep++) {
    const down = sweep % 2 === 0, turn = down ? layers.slice(1) : layers.slice(0, -1).reverse();
    for (const l of turn) {
      for (const b of l) {
        const near = down ? b.up : b.down;
        b.middle = near.length ? near.reduce((s, o) => s + o.k, 0) / near.length : b.k;
      }
      l.sort((a, b) => a.middle - b.middle);
      l.forEach((b, k) => (b.k = k));
    }
  }
}

// Every box near the middle of its neighbours without touching the next one.
function place(layers, gap) {
  for (const l of layers) {
    let x = 0;
    for (const b of l) { b.x = x; x += b.w + gap; }
    for (const b of l) b.x -= x / 2;
  }
  for (let sweep = 0; sweep < 12; sweep++) {
    const down = sweep % 2 === 0;
    for (const l of down ? layers : [...layers].reverse()) {
      const wish = l.map(b => {
        const all = down ? b.up : b.down, real = all.filter(o => !o.dummy);
        if (!all.length) return b.x;
        const near = real.length && !b.dummy ? real : all;  // boxes line up, long edges go around
        return near.reduce((s, o) => s + o.x + o.w / 2, 0) / near.length - b.w / 2;
      });
      const at = settle(l, wish, gap);
      l.forEach((b, k) => (b.x = at[k]));
    }
  }
}

// Positions near the wishes: boxes first, then the edges that pass by, where there is room for them.
function settle(l, wish, gap) {
  const boxes = [...l.keys()].filter(k => !l[k].dummy);
  const at = apart(boxes.map(k => l[k]), boxes.map(k => wish[k]), gap), x = [...wish];
  boxes.forEach((k, i) => (x[k] = at[i]));
  for (let k = (boxes[0] ?? l.length) - 1; k >= 0; k--) {
    if (k + 1 < l.length) x[k] = Math.min(x[k], x[k + 1] - l[k].w - gap);
  }
  for (let k = (boxes[0] ?? 0) + 1; k < l.length; k++) {
    if (l[k].dummy) x[k] = Math.max(x[k], x[k - 1] + l[k - 1].w + gap);
  }
  const fits = l.every((b, k) => k === 0 || x[k] >= x[k - 1] + l[k - 1].w + gap - .01);
  return fits ? x : apart(l, wish, gap);
}

// Positions in this order that do not overlap: the middle between pushing right and pushing left.
function apart(l, wish, gap) {
  const ahead = [...wish], back = [...wish];
  for (let k = 1; k < l.length; k++) ahead[k] = Math.max(wish[k], ahead[k - 1] + l[k - 1].w + gap);
  for (let k = l.length - 2; k >= 0; k--) back[k] = Math.min(wish[k], back[k + 1] - l[k].w - gap);
  return ahead.map((v, k) => (v + back[k]) / 2);
}
