"use strict";
// The charts of this page, from the series it carries.

const data = JSON.parse(document.getElementById("series").textContent);
const BLUE = "#0072b2", ORANGE = "#d55e00", BLACK = "#1d2530", GREY = "#8a949e";
const WORST = "worst atom of a frame";
const host = (id) => document.getElementById(id);
const column = (rows, name) => rows.map((row) => row[name]);

function heat(share) {
  // Dark blue to yellow through green, as viridis: ordered, and told apart by colour-blind readers.
  const stops = [[68, 1, 84], [49, 104, 142], [53, 183, 121], [200, 180, 30]];
  const place = share * (stops.length - 1), n = Math.min(Math.floor(place), stops.length - 2);
  return `rgb(${stops[n].map((a, c) => Math.round(a + (stops[n + 1][c] - a) * (place - n))).join(",")})`;
}

function deviations() {
  const spans = new Map(data.spans.map((span) => [span.iteration, span]));
  const temperatures = [...new Set(column(data.curves, "temperature"))].sort((a, b) => a - b);
  const color = (t) => heat(temperatures.length < 2 ? 0.4 : temperatures.indexOf(t) / (temperatures.length - 1));
  const items = [], stops = [];
  for (const curve of data.curves) {
    const span = spans.get(curve.iteration);
    const x = curve.step.map((step) => span.start + step * span.ps_per_step);
    const tip = (i) => `iteration ${curve.iteration}, walker ${curve.walker}, ${curve.temperature} K\nstep ${curve.step[i]}: ${short(curve.deviation[i])} eV/Å`
      + (curve.stopped ? `\nstopped for ${curve.stopped}` : "");
    items.push({ x, y: curve.deviation, color: color(curve.temperature), tip, dots: x.length < 3 ? 2.5 : 0 });
    if (curve.stopped) stops.push({ x: x.slice(-1), y: curve.deviation.slice(-1), color: ORANGE, cross: true });
  }
  for (const span of data.spans) for (const [level, dash] of [[span.trust_lo, "6 4"], [span.trust_hi, "1.5 3"]])
    if (level !== null) items.push({ x: [span.start, span.end], y: [level, level], color: BLACK, dash, width: 1.3 });
  return chart(host("deviations"), {
    x: { label: "MD time of each walker (ps)", from: 0, to: data.spans.at(-1)?.end }, y: { label: "model deviation (eV/Å)", log: true },
    items: [...items, ...stops],
    marks: data.spans.map((span) => ({ x: span.start, text: span.iteration })),
    legend: temperatures.map((t) => ({ label: `${t} K`, color: color(t) })),
  });
}

function learning() {
  const items = [], kinds = { fresh: ORANGE, test: BLUE };
  for (const [kind, color] of Object.entries(kinds)) {
    const points = data.learning.filter((point) => point.kind === kind);
    const line = { x: column(points, "labels"), y: column(points, "force_mae"), color };
    items.push({ ...line, width: 1.5 });
    items.push({ ...line, dots: 4, low: column(points, "force_mae_low"), high: column(points, "force_mae_high"),
      tip: (i) => { const p = points[i]; return `${kind}, iteration ${p.iteration}, ${p.labels} labels\nforce MAE ${short(p.force_mae)} eV/Å [${short(p.force_mae_low)}, ${short(p.force_mae_high)}]\n`
        + `energy MAE ${short(p.energy_mae)} eV/atom\n${p.frames} frames`; } });
  }
  const labels = column(data.learning, "labels");
  if (labels.length) items.push({ x: [Math.min(...labels), Math.max(...labels)], y: [data.target, data.target], color: BLACK, dash: "6 4" });
  chart(host("learning"), { x: { label: "labels trained on" }, y: { label: "force MAE (eV/Å)", log: true }, items,
    legend: [{ label: "fresh", color: ORANGE }, { label: "test", color: BLUE }, { label: `target ${data.target}`, color: BLACK, dash: "dashed" }] });
}

function parity() {
  const found = data.parity || { reference: [], predicted: [], uid: [], total: 0 };
  const all = [...found.reference, ...found.predicted], ends = all.length ? [Math.min(...all), Math.max(...all)] : [];
  chart(host("parity"), { x: { label: "reference force (eV/Å)" }, y: { label: "predicted force (eV/Å)" }, square: true,
    items: [{ x: ends, y: ends, color: GREY, dash: "6 4" },
      { x: found.reference, y: found.predicted, color: BLUE, dots: 1.6, opacity: 0.5,
        tip: (i) => `frame ${found.uid[i]}\nreference ${short(found.reference[i])}, predicted ${short(found.predicted[i])} eV/Å` }],
    legend: [{ label: `${found.reference.length} of ${found.total} components`, color: BLUE }] });
}

function calibration() {
  const { uid = [], max_deviation: deviation = [], max_error: error = [] } = data.labels;
  const newest = data.calibration.findLast((row) => row.quantities[WORST])?.quantities[WORST].calibration;
  const items = [{ x: deviation, y: error, color: BLUE, dots: 3, opacity: 0.7,
    tip: (i) => `frame ${uid[i]}\ndeviation ${short(deviation[i])}, error ${short(error[i])} eV/Å` }];
  const legend = [];
  if (newest && newest.factor !== null && deviation.length) {
    const ends = [Math.min(...deviation), Math.max(...deviation)].map((d) => Math.max(d, newest.floor));
    items.push({ x: ends, y: ends.map((d) => d * newest.factor), color: BLACK, dash: "6 4" });
    legend.push({ label: `${100 * newest.nominal} % bound: ${short(newest.factor)} × deviation`, color: BLACK, dash: "dashed" });
  }
  chart(host("calibration-chart"), { x: { label: "model deviation (eV/Å)", log: true }, y: { label: "largest force error (eV/Å)", log: true }, items, legend });
}

function coverage(quantity) {
  const seen = data.calibration.filter((row) => row.quantities[quantity]?.coverage);
  const rows = seen.map((row) => ({ ...row.quantities[quantity].coverage, iteration: row.iteration }));
  const nominal = seen[0]?.quantities[quantity].calibration.nominal ?? 0.9, x = column(rows, "iteration"), ends = x.length ? [x[0] - 0.3, x.at(-1) + 0.3] : [];
  host("coverage-chart").replaceChildren();
  chart(host("coverage-chart"), { x: { label: "iteration", ticks: x }, y: { label: "share within the bound", from: 0, to: 1.05 },
    items: [{ x: ends, y: ends.map(() => nominal), color: BLACK, dash: "6 4" },
      { x, y: column(rows, "share"), low: column(rows, "low"), high: column(rows, "high"), color: BLUE, dots: 4,
        tip: (i) => `iteration ${x[i]}: ${rows[i].covered} of ${rows[i].n}` + (rows[i].drift ? "\ndrift" : "") }],
    legend: [{ label: `nominal ${100 * nominal} %`, color: BLACK, dash: "dashed" }] });
}

function quantities() {
  const select = host("quantity"), names = new Set(data.calibration.flatMap((row) => Object.keys(row.quantities)));
  for (const name of names) element(select, "option", "", name);
  select.value = WORST;
  select.onchange = () => coverage(select.value);
  coverage(WORST);
}

function gain() {
  const kinds = { chosen: [BLUE, -0.06], fresh: [ORANGE, 0.06] }, x = column(data.gain, "iteration"), items = [];
  for (const [kind, [color, shift]] of Object.entries(kinds)) {
    const rows = column(data.gain, kind), name = kind === "fresh" ? "random" : kind;
    items.push({ x: x.map((i) => i + shift), y: column(rows, "force_mae"), low: column(rows, "force_mae_low"), high: column(rows, "force_mae_high"), color, dots: 4,
      tip: (i) => `${name}, iteration ${x[i]}\nforce MAE ${short(rows[i].force_mae)} eV/Å [${short(rows[i].force_mae_low)}, ${short(rows[i].force_mae_high)}]\n${rows[i].n_frames} frames` });
  }
  chart(host("gain"), { x: { label: "iteration", ticks: x }, y: { label: "force MAE (eV/Å)", from: 0 }, items,
    legend: [{ label: "chosen", color: BLUE }, { label: "random", color: ORANGE }] });
}

function space() {
  if (!data.scenes.length) return;
  const values = data.scenes.flatMap((scene) => scene.deviation).filter((value) => value > 0);
  const low = Math.log(values.reduce((a, b) => Math.min(a, b), Infinity)), high = Math.log(values.reduce((a, b) => Math.max(a, b), 0));
  const color = (value) => heat(value > 0 && high > low ? Math.min(Math.max((Math.log(value) - low) / (high - low), 0), 1) : 0);
  const scale = host("scale");
  element(scale, "span", "", short(Math.exp(low)));
  element(scale, "i", "").style.background = `linear-gradient(to right, ${[0, 1, 2, 3, 4, 5, 6].map((n) => heat(n / 6)).join(",")})`;
  element(scale, "span", "", `${short(Math.exp(high))} eV/Å`);
  const view = viewer(host("space"), data.scenes, color), select = host("scene"), facts = host("scene-facts");
  data.scenes.forEach((scene, n) => {
    const option = element(select, "option", "", `${scene.iteration}: ${scene.uid.slice(0, 6)}, ${scene.fate}, ${short(Math.max(...scene.deviation))} eV/Å`);
    option.value = n;
    option.dataset.iteration = scene.iteration;
  });
  select.onchange = () => {
    const scene = data.scenes[select.value], worst = scene.deviation.indexOf(Math.max(...scene.deviation));
    view.show(select.value);
    facts.textContent = [`frame ${scene.uid}`, `iteration ${scene.iteration}, walker ${scene.walker}, step ${scene.step}, ${scene.temperature} K`,
      `${scene.verdict}; ${scene.fate}`, `largest deviation ${short(scene.deviation[worst])} eV/Å on atom ${worst} (${scene.symbols[worst]})`,
      `novelty ${short(scene.novelty)}`].join("\n");
  };
  select.onchange();
}

const history = deviations();
learning();
parity();
gain();
calibration();
quantities();
space();

host("iteration").onchange = (event) => {
  const chosen = event.target.value;
  const span = data.spans.find((s) => String(s.iteration) === chosen);
  history.show(span ? [span.start, span.end] : null);
  for (const row of document.querySelectorAll("tr[data-iteration]"))
    row.classList.toggle("hidden", chosen !== "" && row.dataset.iteration !== chosen);
  const frames = [...document.querySelectorAll("#scene option")];
  for (const option of frames) option.hidden = chosen !== "" && option.dataset.iteration !== chosen;
  const first = frames.find((option) => !option.hidden);
  if (first) { host("scene").value = first.value; host("scene").onchange(); }
};
