"use strict";
// Frames in space: drag to turn, wheel to zoom, hover for an atom's numbers; colour is the atom's deviation.

function viewer(host, scenes, color) {
  const canvas = element(host, "canvas", ""), tip = element(host, "div", "tip hidden"), context = canvas.getContext("2d");
  let scene = null, turn = null, zoom = 1, drawn = [];

  function show(index) {
    scene = scenes[index];
    turn = [[0.87, 0.5, 0], [-0.13, 0.23, 0.966], [0.48, -0.84, 0.26]]; // from the side and a little above, z up
    zoom = 1;
    draw();
  }

  const apply = (m, v) => m.map((row) => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
  const multiply = (a, b) => a.map((row) => [0, 1, 2].map((c) => row[0] * b[0][c] + row[1] * b[1][c] + row[2] * b[2][c]));

  function rotate(dx, dy) {
    const [cy, sy, cx, sx] = [Math.cos(dx), Math.sin(dx), Math.cos(dy), Math.sin(dy)];
    turn = multiply([[1, 0, 0], [0, cx, -sx], [0, sx, cx]], multiply([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]], turn));
  }

  function corners() {
    const [a, b, c] = scene.cell, half = (i) => (a[i] + b[i] + c[i]) / 2;
    const at = (n) => [0, 1, 2].map((i) => (n & 1 ? a[i] : 0) + (n & 2 ? b[i] : 0) + (n & 4 ? c[i] : 0) - half(i));
    const edges = [];
    for (let n = 0; n < 8; n++) for (const bit of [1, 2, 4]) if (!(n & bit)) edges.push([at(n), at(n | bit)]);
    return edges;
  }

  function draw() {
    const width = host.clientWidth, height = host.clientHeight, pixels = window.devicePixelRatio || 1;
    if (!scene || !width) return;
    canvas.width = width * pixels;
    canvas.height = height * pixels;
    context.setTransform(pixels, 0, 0, pixels, 0, 0);
    context.clearRect(0, 0, width, height);
    const edges = scene.cell.length ? corners() : [];
    const reach = Math.max(1, ...[...scene.positions, ...edges.flat()].map((v) => Math.hypot(...v))) + 0.7;
    const scale = (zoom * Math.min(width, height)) / (2 * reach);
    const onScreen = (v) => { const [x, y, z] = apply(turn, v); return { x: width / 2 + scale * x, y: height / 2 - scale * y, z }; };
    const line = (from, to, style, thick) => {
      context.strokeStyle = style;
      context.lineWidth = thick;
      context.beginPath();
      context.moveTo(from.x, from.y);
      context.lineTo(to.x, to.y);
      context.stroke();
    };
    for (const [from, to] of edges) line(onScreen(from), onScreen(to), "#b9c1c9", 1);
    drawn = scene.positions.map((v, i) => ({ ...onScreen(v), i, r: 0.5 * scale * scene.radii[i] }));
    const bonds = scene.bonds.map(([i, j]) => ({ z: Math.min(drawn[i].z, drawn[j].z) - 1e-3, from: drawn[i], to: drawn[j] }));
    for (const item of [...drawn, ...bonds].sort((a, b) => a.z - b.z)) {
      if (item.from) line(item.from, item.to, "#9aa4ae", Math.max(0.14 * scale, 1));
      else ball(item);
    }
    drawn.sort((a, b) => b.z - a.z);
  }

  function ball({ x, y, r, i }) {
    const shade = context.createRadialGradient(x - 0.35 * r, y - 0.35 * r, 0.1 * r, x, y, r);
    shade.addColorStop(0, "#fff");
    shade.addColorStop(0.35, color(scene.deviation[i]));
    shade.addColorStop(1, color(scene.deviation[i]));
    context.fillStyle = shade;
    context.beginPath();
    context.arc(x, y, r, 0, 2 * Math.PI);
    context.fill();
    context.strokeStyle = "#1d253066";
    context.lineWidth = 0.8;
    context.stroke();
    if (r > 9) {
      context.fillStyle = "#fff";
      context.strokeStyle = "#1d2530";
      context.lineWidth = 2;
      context.font = `${Math.min(r, 14)}px sans-serif`;
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.strokeText(scene.symbols[i], x, y);
      context.fillText(scene.symbols[i], x, y);
    }
  }

  let held = null;
  canvas.onpointerdown = (event) => { held = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); tip.classList.add("hidden"); };
  canvas.onpointerup = () => { held = null; };
  canvas.onpointerleave = () => tip.classList.add("hidden");
  canvas.onpointermove = (event) => {
    if (held) {
      rotate((event.clientX - held[0]) * 0.01, (event.clientY - held[1]) * 0.01);
      held = [event.clientX, event.clientY];
      draw();
      return;
    }
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const under = drawn.find((atom) => Math.hypot(atom.x - x, atom.y - y) < atom.r);
    tip.classList.toggle("hidden", !under);
    if (!under) return;
    tip.textContent = `atom ${under.i}, ${scene.symbols[under.i]}\ndeviation ${short(scene.deviation[under.i])} eV/Å`;
    tip.style.left = `${Math.min(x + 12, host.clientWidth - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(y - tip.offsetHeight - 8, 0)}px`;
  };
  canvas.onwheel = (event) => { event.preventDefault(); zoom *= Math.exp(-event.deltaY * 0.001); draw(); };
  new ResizeObserver(draw).observe(host);
  return { show };
}
