"use strict";
// A small chart: lines, dots and whiskers on linear or logarithmic axes; hover for values, drag to zoom, double-click to reset.
// spec: {x, y: {label, log, from, to, ticks}, items: [{x, y, low, high, color, width, dash, dots, cross, tip}], marks: [{x, text}], legend, square}
// An item is a line unless it has `dots` (their radius) or `cross`; `tip(i)` gives the text for its point i.

const SVG = "http://www.w3.org/2000/svg";

function shape(parent, name, attributes, text) {
  const node = parent.appendChild(document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function element(parent, name, className, text) {
  const node = parent.appendChild(document.createElement(name));
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const short = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toString());

function usable(axis, value) {
  return typeof value === "number" && Number.isFinite(value) && (!axis.log || value > 0);
}

function extent(axis, columns) {
  let low = Infinity, high = -Infinity;
  for (const column of columns) for (const value of column || []) {
    if (!usable(axis, value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) [low, high] = axis.log ? [0.1, 1] : [0, 1];
  if (axis.log) {
    const room = low === high ? 2 : Math.pow(high / low, 0.05);
    [low, high] = [low / room, high * room];
  } else {
    const room = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * 0.04;
    [low, high] = [low - room, high + room];
  }
  return [axis.from ?? low, axis.to ?? high];
}

function ticks(axis, low, high, most) {
  if (axis.ticks) return axis.ticks.filter((t) => t >= low && t <= high);
  const found = [];
  if (axis.log && high / low > 3) {
    for (const steps of [[1, 2, 5], [1, 3], [1]]) {
      found.length = 0;
      for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
        for (const s of steps) { const t = Number(`${s}e${e}`); if (t >= low && t <= high) found.push(t); }
      if (found.length <= most) break;
    }
    return found;
  }
  const rough = (high - low) / most, power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  for (let n = Math.ceil(low / step); n * step <= high; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

function chart(host, spec) {
  let zoom = null, drawn = 0;
  const tip = element(host, "div", "tip hidden");
  const legend = element(host, "div", "legend");
  for (const entry of spec.legend || []) {
    const line = element(legend, "span", "");
    const mark = element(line, "i", "");
    mark.style.borderTopColor = entry.color;
    mark.style.borderTopStyle = entry.dash || "solid";
    line.append(entry.label);
  }
  const whole = {
    x: extent(spec.x, spec.items.map((item) => item.x)),
    y: extent(spec.y, spec.items.flatMap((item) => [item.y, item.low, item.high])),
  };

  function draw() {
    host.querySelector("svg")?.remove();
    const width = host.clientWidth, height = host.clientHeight;
    drawn = width;
    if (!width) return;
    const svg = shape(host, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${spec.y.label} against ${spec.x.label}` });
    const area = { left: 66, right: width - 10, top: 24, bottom: height - 44 };
    if (spec.square) area.right = Math.min(area.right, area.left + (area.bottom - area.top) * 1.25);
    const domain = zoom || whole;
    const scale = (axis, [low, high], from, to) => {
      const f = axis.log ? Math.log : (v) => v;
      const [a, b] = [f(low), f(high)];
      const forward = (v) => from + ((f(v) - a) / (b - a)) * (to - from);
      forward.back = (p) => { const v = a + ((p - from) / (to - from)) * (b - a); return axis.log ? Math.exp(v) : v; };
      return forward;
    };
    const px = scale(spec.x, domain.x, area.left, area.right), py = scale(spec.y, domain.y, area.bottom, area.top);

    axes(svg, area, domain, px, py);
    const id = `clip-${host.id}`;
    shape(shape(shape(svg, "defs", {}), "clipPath", { id }), "rect",
      { x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top });
    const plot = shape(svg, "g", { "clip-path": `url(#${id})` });
    for (const mark of spec.marks || []) {
      shape(plot, "line", { x1: px(mark.x), x2: px(mark.x), y1: area.top, y2: area.bottom, stroke: "#c3cad2" });
      shape(plot, "text", { x: px(mark.x) + 4, y: area.top + 12 }, mark.text);
    }
    const points = spec.items.flatMap((item) => drawItem(plot, item, px, py));
    watch(svg, area, points, px, py);
  }

  function axes(svg, area, domain, px, py) {
    for (const t of ticks(spec.x, ...domain.x, Math.floor((area.right - area.left) / 70))) {
      shape(svg, "line", { x1: px(t), x2: px(t), y1: area.bottom, y2: area.bottom + 5, stroke: "#8a949e" });
      shape(svg, "text", { x: px(t), y: area.bottom + 19, "text-anchor": "middle" }, short(t));
    }
    for (const t of ticks(spec.y, ...domain.y, Math.floor((area.bottom - area.top) / 32))) {
      shape(svg, "line", { x1: area.left, x2: area.right, y1: py(t), y2: py(t), stroke: "#eceff2" });
      shape(svg, "text", { x: area.left - 7, y: py(t) + 4, "text-anchor": "end" }, short(t));
    }
    shape(svg, "path", { d: `M${area.left} ${area.top}V${area.bottom}H${area.right}`, fill: "none", stroke: "#8a949e" });
    shape(svg, "text", { x: (area.left + area.right) / 2, y: area.bottom + 38, "text-anchor": "middle" }, spec.x.label);
    shape(svg, "text", { transform: `translate(14 ${(area.top + area.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, spec.y.label);
  }

  function drawItem(plot, item, px, py) {
    const points = [];
    let path = "";
    for (let i = 0; i < item.x.length; i++) {
      if (!usable(spec.x, item.x[i]) || !usable(spec.y, item.y[i])) continue;
      const x = px(item.x[i]), y = py(item.y[i]);
      path += `${path ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      if (item.dots) shape(plot, "circle", { cx: x, cy: y, r: item.dots, fill: item.color, "fill-opacity": item.opacity ?? 1 });
      if (item.cross) shape(plot, "path", { d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10`, stroke: item.color, "stroke-width": 2 });
      if (item.low && usable(spec.y, item.high[i])) {
        const foot = usable(spec.y, item.low[i]) ? py(item.low[i]) : 1e4; // zero lies below any logarithmic axis
        shape(plot, "path", { d: `M${x} ${foot}V${py(item.high[i])}`, stroke: item.color, "stroke-width": 1.5 });
      }
      if (item.tip) points.push({ x, y, text: () => item.tip(i) });
    }
    if (!item.dots && !item.cross)
      shape(plot, "path", { d: path, fill: "none", stroke: item.color, "stroke-width": item.width || 1, "stroke-dasharray": item.dash || "none",
        "stroke-linejoin": "round" });
    return points;
  }

  function watch(svg, area, points, px, py) {
    const ring = shape(svg, "circle", { r: 5, fill: "none", stroke: "#1d2530", "stroke-width": 1.5, visibility: "hidden" });
    const frame = shape(svg, "rect", { fill: "#0072b2", "fill-opacity": 0.15, visibility: "hidden" });
    let start = null;
    const at = (event) => { const box = svg.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    svg.onpointerdown = (event) => { start = at(event); };
    svg.onpointermove = (event) => {
      const [x, y] = at(event);
      if (start) {
        tip.classList.add("hidden");
        for (const [key, value] of Object.entries({ x: Math.min(x, start[0]), y: Math.min(y, start[1]), width: Math.abs(x - start[0]),
          height: Math.abs(y - start[1]), visibility: "visible" })) frame.setAttribute(key, value);
        return;
      }
      let best = null, least = 400;
      for (const point of points) {
        const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
        if (distance < least && point.x >= area.left && point.x <= area.right) [best, least] = [point, distance];
      }
      ring.setAttribute("visibility", best ? "visible" : "hidden");
      tip.classList.toggle("hidden", !best);
      if (!best) return;
      ring.setAttribute("cx", best.x);
      ring.setAttribute("cy", best.y);
      tip.textContent = best.text();
      tip.style.left = `${Math.min(best.x + 12, host.clientWidth - tip.offsetWidth)}px`;
      tip.style.top = `${Math.max(best.y - tip.offsetHeight - 8, 0)}px`;
    };
    svg.onpointerup = (event) => {
      const [x, y] = at(event), [x0, y0] = start || [x, y];
      start = null;
      frame.setAttribute("visibility", "hidden");
      if (Math.abs(x - x0) < 8 || Math.abs(y - y0) < 8) return;
      zoom = { x: [px.back(Math.min(x, x0)), px.back(Math.max(x, x0))], y: [py.back(Math.max(y, y0)), py.back(Math.min(y, y0))] };
      draw();
    };
    svg.onpointerleave = () => { start = null; tip.classList.add("hidden"); for (const node of [ring, frame]) node.setAttribute("visibility", "hidden"); };
    svg.ondblclick = () => { zoom = null; draw(); };
  }

  draw();
  new ResizeObserver(() => { if (host.clientWidth !== drawn) draw(); }).observe(host);
  return { show(x) { zoom = x && { x, y: whole.y }; draw(); } };
}
