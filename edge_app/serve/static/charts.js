// The curves, drawn by uPlot. Colours come from the style sheet, so that themes hold here too.
"use strict";

window.charts = (() => {
  const HEIGHT = 190;
  const CAUSES = ["thermal", "battery", "deadline", "load", "throttle", "failsafe", "policy", "fixed", "none"];
  const STEPS = { minutes: 600, hour: 3600, day: 86400 };
  const MOST = { minutes: 600, hour: 360, day: 360 };
  let span = "minutes";
  let data = null;
  let marks = null;
  let loading = null;
  const plots = {};

  const ratio = () => uPlot.pxRatio || window.devicePixelRatio;
  const two = (n) => String(n).padStart(2, "0");

  function clock(seconds, withSeconds) {
    const at = new Date(1000 * seconds);
    return two(at.getHours()) + ":" + two(at.getMinutes()) + (withSeconds ? ":" + two(at.getSeconds()) : "");
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const dash = () => [6 * ratio(), 5 * ratio()];

  // --- pieces of a plot ------------------------------------------------------------------------

  function axis(format, size) {
    return {
      stroke: () => colour("soft"),
      grid: { stroke: () => colour("line"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
      ...(format
        ? { values: (u, ticks) => ticks.map(format), size: size || 46 }
        : { values: (u, ticks, axis, space, step) => ticks.map((at) => clock(at, step < 60)), size: 30, space: 70 }),
    };
  }

  function line(name, label, value, extra) {
    return { stroke: () => colour(name), width: 2, label, value, spanGaps: false, points: { show: false }, ...extra };
  }

  // A horizontal line at a value, with its name at the right end.
  function rule(u, at, name, ink) {
    if (at === null || at === undefined) return;
    const y = u.valToPos(at, "y", true);
    if (y < u.bbox.top - 1 || y > u.bbox.top + u.bbox.height + 1) return;
    const c = u.ctx;
    c.save();
    c.strokeStyle = colour(ink);
    c.lineWidth = 1.5 * ratio();
    c.setLineDash(dash());
    c.beginPath();
    c.moveTo(u.bbox.left, y);
    c.lineTo(u.bbox.left + u.bbox.width, y);
    c.stroke();
    c.fillStyle = colour("soft");
    c.font = 11 * ratio() + "px system-ui, sans-serif";
    c.textAlign = "left";
    c.textBaseline = "bottom";
    c.fillText(name, u.bbox.left + 4 * ratio(), y - 2 * ratio());
    c.restore();
  }

  // Coloured areas below the level, each with the name of its cause where there is room: colour is
  // not the only sign.
  function causes(u) {
    if (!data) return;
    const c = u.ctx;
    const { left, top, width, height } = u.bbox;
    const bottom = u.valToPos(0, "y", true);
    c.save();
    c.beginPath();
    c.rect(left, top, width, height);
    c.clip();
    c.font = "600 " + 11 * ratio() + "px system-ui, sans-serif";
    c.textAlign = "center";
    c.textBaseline = "bottom";
    for (let i = 0; i < data.t.length; ) {
      let j = i + 1;
      while (j < data.t.length && data.bits[j] === data.bits[i] && data.cause[j] === data.cause[i]) j++;
      if (data.bits[i] !== null) {
        const from = u.valToPos(data.t[i], "x", true);
        const to = u.valToPos(j < data.t.length ? data.t[j] : data.t[j - 1], "x", true);
        const y = u.valToPos(data.bits[i], "y", true);
        c.globalAlpha = data.cause[i] === "none" ? 0.35 : 0.85;
        c.fillStyle = colour(data.cause[i]);
        c.fillRect(from, y, to - from + 1, bottom - y);
        const name = data.cause[i] === "none" ? "" : data.cause[i];
        if (name && c.measureText(name).width + 8 * ratio() < to - from) {
          c.globalAlpha = 1;
          c.fillStyle = colour(["policy", "failsafe"].includes(name) ? "on-" + name : "on-cause");
          c.fillText(name, (from + to) / 2, bottom - 4 * ratio());
        }
      }
      i = j;
    }
    c.restore();
  }

  // From the newest charge to the reserve, and the time until which it is meant to last.
  function projection(u) {
    if (!data || !marks || !data.t.length) return;
    const last = data.t.length - 1;
    const charge = data.battery[last];
    if (charge === null) return;
    const c = u.ctx;
    const x = (at) => u.valToPos(data.t[last] + at, "x", true);
    const draw = (ink, dashes, from, to) => {
      c.strokeStyle = colour(ink);
      c.setLineDash(dashes);
      c.beginPath();
      c.moveTo(...from);
      c.lineTo(...to);
      c.stroke();
    };
    c.save();
    c.beginPath();
    c.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    c.clip();
    c.lineWidth = 2 * ratio();
    if (marks.end_s !== null) {
      const empty = u.valToPos(Math.min(charge, marks.reserve), "y", true);
      draw("ink", dash(), [x(0), u.valToPos(charge, "y", true)], [x(marks.end_s), empty]);
    }
    if (marks.until_s !== null) {
      const at = Math.round(x(marks.until_s));
      draw("policy", [], [at, u.bbox.top], [at, u.bbox.top + u.bbox.height]);
      c.fillStyle = colour("soft");
      c.font = 11 * ratio() + "px system-ui, sans-serif";
      c.textAlign = "right";
      c.fillText("until", at - 5 * ratio(), u.bbox.top + 12 * ratio());
    }
    c.restore();
  }

  // How far a plot looks ahead, in seconds: past all that is projected, but a tenth remains for what was.
  function ahead(kind, shown) {
    if (!kind.ahead || !marks) return 0;
    return Math.min(9 * shown, 1.08 * Math.max(0, marks.end_s, marks.until_s));
  }

  // --- the plots -----------------------------------------------------------------------------------

  const known = (u, at, digits, unit) => (at === null || at === undefined ? "–" : at.toFixed(digits) + " " + unit);
  const degrees = (u, at) => known(u, at, 1, "°C");
  const percent = (u, at) => (at === null || at === undefined ? "–" : (100 * at).toFixed(0) + " %");
  const milliseconds = (u, at) => known(u, at, 2, "ms");

  const KINDS = {
    level: {
      height: 150,
      columns: ["bits"],
      series: () => [line("ink", "level", (u, at) => known(u, at, 0, "bits"), { paths: uPlot.paths.stepped({ align: 1 }) })],
      axis: axis((at) => at.toFixed(0), 30),
      range: () => [0, 1.12 * Math.max(8, ...(marks ? marks.levels : []))],
      splits: () => [0, ...(marks ? marks.levels : [2, 4, 6, 8])],
      before: causes,
    },
    heat: {
      columns: ["temperature_c", "forecast_c"],
      series: () => [
        line("thermal", "temperature", degrees),
        line("deadline", "forecast", degrees, { dash: [5, 4], width: 1.5 }),
      ],
      axis: axis((at) => at.toFixed(0) + "°"),
      range: (u, low, high) => {
        const most = Math.max(high || 0, marks ? marks.critical_c : 0);
        const least = Math.min(low === null ? most : low, marks ? marks.on_c : most);
        return [Math.floor((least - 4) / 5) * 5, Math.ceil((most + 3) / 5) * 5];
      },
      after: (u) => {
        if (!marks) return;
        rule(u, marks.on_c, "counts from", "soft");
        rule(u, marks.control_c, "kept to", "throttle");
        rule(u, marks.critical_c, "critical", "thermal");
      },
    },
    battery: {
      columns: ["battery"],
      ahead: true,
      series: () => [line("battery", "charge", percent)],
      axis: axis((at) => (100 * at).toFixed(0) + " %"),
      range: () => [0, 1.05],
      after: (u) => {
        if (marks) rule(u, marks.reserve, "reserve", "soft");
        projection(u);
      },
    },
    latency: {
      columns: ["p50_ms", "p95_ms", "p99_ms"],
      series: () => [
        line("none", "median", milliseconds),
        line("policy", "95 %", milliseconds, { dash: [8, 3] }),
        line("deadline", "99 %", milliseconds, { dash: [2, 3], width: 1.5 }),
      ],
      axis: axis((at) => (at === null ? "" : at >= 1 ? at.toFixed(0) : String(Number(at.toPrecision(1))))),
      log: true,
      range: (u, low, high) => {
        const most = Math.max(high || 1, marks ? marks.deadline_ms : 0);
        return [Math.min(low || 1, most / 10) / 1.6, most * 1.8];
      },
      after: (u) => {
        if (marks && marks.deadline_ms > 0) rule(u, marks.deadline_ms, "deadline " + marks.deadline_ms + " ms", "thermal");
      },
    },
  };

  function values(kind) {
    return [data.t, ...kind.columns.map((name) => data[name])];
  }

  function window_(kind) {
    const now = data && data.t.length ? data.t[data.t.length - 1] : Date.now() / 1000;
    const first = data && data.t.length ? data.t[0] : now - 60;
    // A run that began just now fills the picture instead of a corner of it.
    const shown = Math.min(STEPS[span], Math.max(60, now - first));
    return [now - shown, now + ahead(kind, shown)];
  }

  function build(name) {
    const kind = KINDS[name];
    const place = document.getElementById("chart-" + name);
    place.replaceChildren();
    const legend = document.createElement("div");
    const y = { ...kind.axis, ...(kind.splits ? { splits: kind.splits } : {}) };
    const scale = kind.log
      ? { distr: 3, range: (u, low, high) => kind.range(u, low, high) }
      : { range: (u, low, high) => kind.range(u, low, high) };
    const plot = new uPlot(
      {
        width: place.clientWidth,
        height: kind.height || HEIGHT,
        legend: { show: false },
        cursor: { y: false, drag: { setScale: false, x: false, y: false }, points: { size: 7 } },
        scales: { x: { time: true, range: () => window_(kind) }, y: scale },
        axes: [axis(), y],
        series: [{}, ...kind.series()],
        hooks: {
          drawAxes: kind.before ? [kind.before] : [],
          draw: kind.after ? [kind.after] : [],
          setCursor: [(u) => tell(u, legend, kind)],
        },
      },
      values(kind),
      place,
    );
    legend.className = "legend";
    place.append(legend);
    place.tabIndex = 0;
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", kind.columns.length > 1 ? "Curves; arrow keys move along them" : "Curve; arrow keys move along it");
    plots[name] = { plot, kind, place, legend };
    tell(plot, legend, kind);
  }

  // The legend, with the values where the pointer is, else the newest.
  function tell(u, legend, kind) {
    const last = data.t.length - 1;
    const at = u.cursor.idx === null || u.cursor.idx === undefined ? last : u.cursor.idx;
    const parts = [];
    const add = (ink, text, value, box) => {
      const entry = document.createElement("span");
      const mark = document.createElement("i");
      if (box) {
        mark.className = "box";
        mark.style.background = colour(ink);
      } else {
        mark.style.borderTopColor = colour(ink);
        if (box === undefined) mark.style.borderTopStyle = "solid";
        else mark.style.borderTopStyle = "dashed";
      }
      const number = document.createElement("span");
      number.className = "value";
      number.textContent = value;
      entry.append(mark, text + " ", number);
      parts.push(entry);
    };
    const time = document.createElement("span");
    time.textContent = last < 0 ? "" : clock(data.t[at], true);
    parts.push(time);
    if (kind.columns[0] === "bits") {
      add("ink", "level", last < 0 ? "–" : known(u, data.bits[at], 0, "bits") + ", " + data.cause[at]);
      const seen = new Set(data.cause);
      for (const cause of CAUSES) if (seen.has(cause)) add(cause, cause === "none" ? "nothing holds it" : cause, "", true);
    } else {
      u.series.slice(1).forEach((series, index) => {
        const value = last < 0 ? "–" : series.value(u, data[kind.columns[index]][at]);
        const ink = ["heat", "battery", "latency"].map((n) => KINDS[n]).includes(kind) ? inkOf(kind, index) : "ink";
        add(ink, series.label, value, series.dash ? false : undefined);
      });
      if (kind.ahead && marks && last >= 0 && data.battery[last] !== null) {
        const when = (later) => clock(data.t[last] + later, later < 600);
        if (marks.end_s !== null) add("ink", "would end", when(marks.end_s), false);
        if (marks.until_s !== null) add("policy", "until", when(marks.until_s));
      }
    }
    legend.replaceChildren(...parts);
  }

  const inkOf = (kind, index) =>
    kind === KINDS.heat ? ["thermal", "deadline"][index] : kind === KINDS.battery ? "battery" : ["none", "policy", "deadline"][index];

  function buildAll() {
    for (const name of Object.keys(KINDS)) {
      if (plots[name]) plots[name].plot.destroy();
      build(name);
    }
    const empty = data.battery.every((charge) => charge === null);
    document.getElementById("chart-battery").hidden = empty;
    if (compared) compare(compared);
  }

  async function load() {
    if (loading === span) return;
    const asked = (loading = span);
    try {
      const response = await fetch("/history.json?span=" + asked);
      const columns = await response.json();
      // Somebody may have chosen another span meanwhile.
      if (!response.ok || asked !== span) return;
      data = columns;
      marks = data.marks;
      buildAll();
    } finally {
      if (loading === asked) loading = null;
    }
  }

  const NAMES = ["t", "bits", "cause", "temperature_c", "forecast_c", "battery", "fps", "p50_ms", "p95_ms", "p99_ms", "age_ms"];
  let loadedAt = 0;

  function add(point, newMarks) {
    marks = newMarks;
    if (!point) return;
    const coarse = span !== "minutes";
    const missing = !data || data.span !== span || (!coarse && point.number > data.number + 1) || point.number < data.number;
    if ((missing && !coarse) || !data || (coarse && Date.now() - loadedAt > 1000 * data.step_s)) {
      loadedAt = Date.now();
      load().catch(() => undefined);
      return;
    }
    if (coarse || point.number <= data.number) return;
    data.number = point.number;
    for (const name of NAMES) {
      data[name].push(point[name]);
      if (data[name].length > MOST[span]) data[name].shift();
    }
    const battery = document.getElementById("chart-battery");
    if (battery.hidden && point.battery !== null) {
      battery.hidden = false;
      resize();
    }
    if (document.hidden) return;
    for (const entry of Object.values(plots)) {
      entry.plot.setData(values(entry.kind));
      if (entry.pinned) pin(entry, entry.pinned);
      tell(entry.plot, entry.legend, entry.kind);
    }
  }

  // --- what if -------------------------------------------------------------------------------------

  let compared = null;
  let comparison = null;

  function compare(runs) {
    compared = runs;
    if (comparison) comparison.destroy();
    const place = document.getElementById("chart-what-if");
    place.replaceChildren();
    const longest = runs.reduce((most, run) => (run.hours.length > most.hours.length ? run : most));
    const filled = (values) => longest.hours.map((hour, index) => (index < values.length ? values[index] : null));
    const inks = ["thermal", "policy"];
    const series = [{}];
    const columns = [longest.hours];
    runs.forEach((run, index) => {
      series.push(line(inks[index], run.summary.governor, degrees, { width: 1.5 }));
      columns.push(filled(run.chip_c));
      series.push(line(inks[index], run.summary.governor, null, { scale: "bits", dash: [3, 3], paths: uPlot.paths.stepped({ align: 1 }) }));
      columns.push(filled(run.bits));
    });
    comparison = new uPlot(
      {
        width: place.clientWidth,
        height: 220,
        legend: { show: false },
        cursor: { show: false },
        scales: { x: { time: false }, y: { range: (u, low, high) => [Math.floor((low - 3) / 5) * 5, Math.ceil((high + 3) / 5) * 5] }, bits: { range: () => [0, 20] } },
        axes: [
          axis((at) => at + " h", 30),
          axis((at) => at.toFixed(0) + "°"),
          { ...axis((at) => (at <= 8 ? at + " bits" : "")), scale: "bits", side: 1, size: 56, splits: () => [0, 2, 4, 6, 8], grid: { show: false } },
        ],
        series,
      },
      columns,
      place,
    );
    const legend = document.createElement("div");
    legend.className = "legend";
    runs.forEach((run, index) => {
      const entry = document.createElement("span");
      const mark = document.createElement("i");
      mark.style.borderTopColor = colour(inks[index]);
      entry.append(mark, run.summary.governor);
      legend.append(entry);
    });
    legend.append("solid: temperature, dotted: bits");
    place.append(legend);
  }

  // --- size, keys, spans ----------------------------------------------------------------------------

  function resize() {
    for (const { plot, place, kind } of Object.values(plots)) {
      const width = place.clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: kind.height || HEIGHT });
    }
    const place = document.getElementById("chart-what-if");
    if (comparison && place.clientWidth) comparison.setSize({ width: place.clientWidth, height: 220 });
  }

  function move(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const entry = Object.values(plots).find(({ place }) => place === event.target);
    if (!step || !entry || !data.t.length) return;
    event.preventDefault();
    const at = entry.pinned ? data.t.findIndex((time) => time >= entry.pinned) : data.t.length - 1;
    const to = Math.max(0, Math.min(data.t.length - 1, at + step * (event.shiftKey ? 10 : 1)));
    pin(entry, data.t[to]);
  }

  // Keeps the cursor at a moment while the curves move on.
  function pin(entry, time) {
    entry.pinned = time;
    entry.plot.setCursor({ left: entry.plot.valToPos(time, "x"), top: 10 });
  }

  function unpin(event) {
    const entry = Object.values(plots).find(({ place }) => place === event.target);
    if (!entry || !entry.pinned) return;
    entry.pinned = null;
    entry.plot.setCursor({ left: -10, top: -10 });
  }

  function choose(event) {
    const button = event.target.closest("button[data-span]");
    if (!button) return;
    span = button.dataset.span;
    for (const other of document.querySelectorAll("button[data-span]")) other.setAttribute("aria-pressed", other === button);
    loadedAt = Date.now();
    load().catch(() => undefined);
  }

  const spans = document.querySelector(".spans");
  spans.hidden = false;
  spans.addEventListener("click", choose);
  document.addEventListener("keydown", move);
  document.addEventListener("focusout", unpin);
  new ResizeObserver(resize).observe(document.querySelector("main"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => data && buildAll());
  load().catch(() => undefined);

  return { add, compare, redraw: () => data && buildAll() };
})();
