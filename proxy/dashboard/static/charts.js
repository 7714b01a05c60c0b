// Draws what the page holds as JSON: courses over time, stacked, or with the interval of each value;
// and, again and again, what the server saw in the last half hour.
"use strict";

(() => {
  const LOOK_MS = 5000;
  const DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3]];
  const plots = new Map();
  const probe = document.createElement("span");
  // The variable itself would still say light-dark(…): only a colour that is worn is one of the two.
  const colour = (name) => {
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const worn = getComputedStyle(probe).color;
    probe.remove();
    return worn;
  };
  const tone = (index) => colour(`--c${(index % 8) + 1}`);

  const units = {
    share: (v) => `${(100 * v).toFixed(0)} %`,
    count: (v) => v.toLocaleString("en", { maximumFractionDigits: 0 }),
    rate: (v) => v.toLocaleString("en", { maximumFractionDigits: 2 }),
    seconds: (v) => (v < 1 ? `${(1000 * v).toFixed(0)} ms` : `${v.toFixed(2)} s`),
  };
  const told = (unit, value) => (value == null ? "–" : units[unit](value));

  // ---------------------------------------------------------------- what is drawn

  // uPlot's labels are American: month first, and twelve hours.
  const iso = (template) => template
    .replace("{M}/{D}/{YY}", "{YYYY}-{MM}-{DD}").replace("{M}/{D}", "{MM}-{DD}")
    .replace("{h}:{mm}:{ss}{aa}", "{HH}:{mm}:{ss}").replace("{h}:{mm}{aa}", "{HH}:{mm}").replace("{h}{aa}", "{HH}:00");

  const axes = (unit) => {
    const line = { stroke: colour("--soft"), font: "12px system-ui", grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const values = (_, splits) => splits.map((v) => told(unit, v));
    return [{ ...line }, { ...line, values, size: 64 }];
  };

  const plain = (chart, unit) => ({
    data: [chart.at, ...chart.lines.map((line) => line.values)],
    series: chart.lines.map((line, n) => ({
      label: line.name, stroke: tone(n), width: 2, dash: DASHES[n % DASHES.length], spanGaps: false,
      points: { show: chart.at.length < 3 }, value: (_, v) => told(unit, v),
    })),
    bands: [],
  });

  // The sum of a line and those below it; drawn from the highest, so that each covers what is below.
  const stacked = (chart, unit) => {
    const sums = [];
    chart.lines.forEach((line, n) => {
      sums.push(line.values.map((value, at) => value + (n ? sums[n - 1][at] : 0)));
    });
    // Once more at the end, so that the last slot has a width, too.
    const ended = (values) => [...values, values.at(-1)];
    const end = 2 * chart.at.at(-1) - chart.at.at(-2);
    const order = chart.lines.map((_, n) => n).reverse();
    return {
      data: [[...chart.at, end], ...order.map((n) => ended(sums[n]))],
      series: order.map((n) => ({
        label: chart.lines[n].name, stroke: tone(n), fill: tone(n), width: 1, points: { show: false },
        paths: uPlot.paths.stepped({ align: 1 }),
        value: (_, v, __, at) => (at == null ? "–" : told(unit, ended(chart.lines[n].values)[at])),
      })),
      bands: [],
    };
  };

  const band = (chart, unit) => {
    const [line] = chart.lines;
    const hidden = { stroke: "transparent", points: { show: false }, spanGaps: true };
    return {
      data: [chart.at, line.values, line.highs, line.lows],
      series: [
        { label: line.name, stroke: tone(0), width: 2, spanGaps: true, points: { show: true, size: 6, fill: tone(0) }, value: (_, v) => told(unit, v) },
        { ...hidden, label: "at most", value: (_, v) => told(unit, v) },
        { ...hidden, label: "at least", value: (_, v) => told(unit, v) },
      ],
      bands: [{ series: [2, 3], fill: colour("--band") }],
    };
  };

  const kinds = { lines: plain, stacked, band };

  const draw = (place, chart) => {
    const { unit, kind } = place.dataset;
    plots.get(place)?.plot.destroy();
    plots.delete(place);
    if (!chart || chart.at.length < 2 || !chart.lines.length) {
      place.textContent = "Nothing to draw yet; this page looks again by itself.";
      return;
    }
    place.textContent = "";
    const made = kinds[kind](chart, unit);
    const range = unit === "share" ? [0, 1] : (_, low, high) => [0, high > 0 ? high * 1.1 : 1];
    const options = {
      width: Math.max(240, place.clientWidth),
      height: Number(place.dataset.height),
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      fmtDate: (template) => uPlot.fmtDate(iso(template)),
      scales: { y: { range } },
      axes: axes(unit),
      series: [{ label: "At", value: "{YYYY}-{MM}-{DD} {HH}:{mm}" }, ...made.series],
      bands: made.bands,
      cursor: { drag: { x: false, y: false } },
    };
    plots.set(place, { chart, plot: new uPlot(options, made.data, place) });
  };

  const drawAll = () => {
    for (const place of plots.keys()) {
      if (!place.isConnected) {
        plots.get(place).plot.destroy();
        plots.delete(place);
      }
    }
    document.querySelectorAll(".chart[data-chart]").forEach((place) => {
      if (!plots.has(place)) draw(place, JSON.parse(place.dataset.chart));
    });
  };

  // ---------------------------------------------------------------- now

  const live = {
    lines: (history) => ({ at: history.at, lines: Object.entries(history.lines).map(([name, values]) => ({ name, values })) }),
    times: (history) => ({ at: history.at, lines: [{ name: "median", values: history.p50_s }, { name: "95 % within", values: history.p95_s }] }),
  };

  const look = async () => {
    const places = document.querySelectorAll(".chart[data-live]");
    if (!places.length || document.visibilityState !== "visible") return;
    const answer = await fetch("/dashboard/live.json");
    if (!answer.ok || answer.redirected) return;
    const { history } = await answer.json();
    places.forEach((place) => draw(place, live[place.dataset.live](history)));
  };

  const again = async () => {
    try {
      await look();
    } catch {
      // The server is away for a moment; the next look finds it.
    }
    setTimeout(again, LOOK_MS);
  };

  const redraw = () => {
    for (const [place, { chart }] of [...plots]) draw(place, chart);
  };

  document.addEventListener("DOMContentLoaded", () => {
    drawAll();
    again();
  });
  document.addEventListener("htmx:after:swap", drawAll);
  document.addEventListener("headrace:theme", redraw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) redraw();
    width = innerWidth;
  });
})();
