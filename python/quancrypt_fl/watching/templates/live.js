"use strict";
// Shows status.json and asks for it again and again. Texts from it become text nodes only.
(() => {
  const EVERY = 1000, SLOWLY = 5000, PATIENCE = 8000; // milliseconds
  const STALE = 20; // seconds without a heartbeat, which comes every 5
  const MOST_ROWS = 200, MOST_ROUNDS = 60, MOST_BARS = 8, MOST_POINTS = 300, HEIGHT = 260;
  const PHASES = ["train", "protect", "aggregate", "unprotect", "evaluate"];
  const SIGNS = { asked: "…", answered: "✓", refused: "✗", lost: "✗", idle: "" };
  const LOOKS = ["refused", "lost", "failed", "finished"]; // of events
  const ORDER = ["refused", "lost", "asked", "answered", "idle"];
  const UNITS = [["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["kB", 1e3]];
  const NOTHING = "–";
  const SVG = "http://www.w3.org/2000/svg";
  const id = (name) => document.getElementById(name);

  let shown = null; // the document on the page
  let tag = null; // its ETag
  let offset = 0; // seconds that the server's clock is ahead of ours
  let lastAnswer = null, failures = 0;

  // --- elements ---

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }
  const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
  const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
  function say(element, text) { if (element.textContent !== text) element.textContent = text; }

  // --- figures ---

  function three(value) {
    if (value >= 99.95) return Math.round(value).toLocaleString("en");
    if (value >= 9.995) return value.toFixed(1);
    return value >= 0.9995 || value === 0 ? value.toFixed(2) : String(Number(value.toPrecision(3)));
  }
  const known = (value) => value !== null && value !== undefined;
  const percent = (share, digits = 2) => known(share) ? `${(100 * share).toFixed(digits)} %` : NOTHING;
  const whole = (value) => known(value) ? value.toLocaleString("en") : NOTHING;
  const loss = (value) => known(value) ? String(Number(value.toPrecision(4))) : NOTHING;
  function size(bytes) {
    if (!known(bytes)) return NOTHING;
    for (const [unit, factor] of UNITS)
      if (bytes >= 0.9995 * factor) return `${three(bytes / factor)} ${unit}`;
    return `${Math.round(bytes)} B`;
  }
  function roundSize(bytes) {
    for (const [unit, factor] of UNITS) if (bytes >= factor) return `${bytes / factor} ${unit}`;
    return `${bytes} B`;
  }
  function seconds(value) {
    if (!known(value)) return NOTHING;
    if (value >= 0.1 || value === 0) return `${three(value)} s`;
    return value >= 1e-4 ? `${three(value * 1e3)} ms` : `${three(value * 1e6)} µs`;
  }
  function span(value) {
    const s = Math.max(0, Math.floor(value)), two = (n) => String(n).padStart(2, "0");
    if (s < 60) return `${s} s`;
    return s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)} min` : `${Math.floor(s / 3600)}:${two(Math.floor(s % 3600 / 60))} h`;
  }
  const counted = (n, noun) => `${whole(n)} ${noun}${n === 1 ? "" : "s"}`;
  const now = () => Date.now() / 1000 + offset;
  const over = (status) => ["finished", "failed", "stopped"].includes(status.state);

  // --- charts, as those of the report ---

  function ticksOf(low, high, marks = 5) {
    if (high - low < 1e-12 * Math.max(1, Math.abs(high))) { const s = 0.05 * (Math.abs(high) || 1); low -= s; high += s; }
    const rough = (high - low) / marks, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].find((s) => s >= rough / power * (1 - 1e-9)) * power;
    const ticks = [];
    for (let i = Math.floor(low / step + 1e-9); i <= Math.ceil(high / step - 1e-9); i++) ticks.push(Number((i * step).toPrecision(12)));
    return ticks;
  }
  function roundTicks(first, last) {
    if (first === last) return [first];
    const step = Math.max(1, Math.ceil(ticksOf(0, (last - first) / 6, 1)[1])), inner = [];
    for (let t = Math.ceil(first / step) * step; t <= last; t += step)
      if (Math.min(t - first, last - t) >= 0.5 * step) inner.push(t);
    return [first, ...inner, last];
  }

  // At most MOST_POINTS, evenly, the first and the last among them.
  function thinned(points) {
    const last = points.length - 1;
    return last < MOST_POINTS ? points : Array.from({ length: MOST_POINTS }, (_, i) => points[Math.round(i * last / (MOST_POINTS - 1))]);
  }

  // lines: [{label, look, points: [[round, value], ...]}]; all charts share the rounds from first to last
  function lineChart(name, title, [first, last], lines, text, tickText, share = false) {
    const drawn = lines.filter((line) => line.points.length);
    if (!drawn.length) return null;
    const ys = drawn.flatMap((line) => line.points.map((p) => p[1]));
    const xTicks = roundTicks(first, last);
    if (first === last) { first -= 1; last += 1; }
    let yTicks = ticksOf(share ? Math.min(...ys) : 0, Math.max(...ys));
    const [low, high] = [yTicks[0], yTicks[yTicks.length - 1]];
    const bottom = share ? Math.max(0, low) : low, top = share ? Math.min(1, high) : high;
    yTicks = yTicks.filter((t) => t >= bottom && t <= top);
    const x = (v) => 100 * (v - first) / (last - first), y = (v) => HEIGHT * (1 - (v - bottom) / ((top - bottom) || 1));
    const axis = svg("svg", { class: "y-axis", height: HEIGHT + 34, "aria-hidden": "true" });
    const inner = svg("svg", { y: 10, width: "100%", height: HEIGHT, overflow: "visible" });
    for (const t of yTicks) {
      axis.append(svg("text", { x: "100%", y: y(t) + 10, dy: "0.35em", "text-anchor": "end" }, tickText(t, yTicks)));
      inner.append(svg("line", { class: "grid", x1: 0, x2: "100%", y1: y(t), y2: y(t) }));
    }
    for (const t of xTicks) {
      inner.append(svg("line", { class: "tick", x1: `${x(t)}%`, x2: `${x(t)}%`, y1: HEIGHT, y2: HEIGHT + 5 }));
      inner.append(svg("text", { x: `${x(t)}%`, y: HEIGHT + 19, "text-anchor": "middle" }, whole(t)));
    }
    const area = svg("svg", { width: "100%", height: HEIGHT, viewBox: `0 0 1000 ${HEIGHT}`, preserveAspectRatio: "none", overflow: "visible" });
    inner.append(area);
    for (const line of drawn) {
      const dots = line.points.length <= 30;
      area.append(svg("polyline", {
        class: `line ${line.look}${dots ? "" : " fine"}`, "vector-effect": "non-scaling-stroke",
        points: line.points.map(([a, b]) => `${(10 * x(a)).toFixed(2)},${y(b).toFixed(2)}`).join(" "),
      }));
      const marks = svg("g", { class: `${line.look}${dots ? " dots" : ""}` });
      for (const [a, b] of line.points)
        marks.append(svg("g", { class: "mark" },
          svg("circle", { class: "dot", cx: `${x(a)}%`, cy: y(b), r: 3 }),
          svg("circle", { class: "hit", cx: `${x(a)}%`, cy: y(b), r: 8 }, svg("title", {}, `${line.label}: ${text(b)} (round ${whole(a)})`))));
      inner.append(marks);
    }
    const end = drawn[0].points[drawn[0].points.length - 1];
    const picture = svg("svg", { class: "area", height: HEIGHT + 34, role: "img", "aria-label": `${title}. ${drawn[0].label} after round ${end[0]}: ${text(end[1])}.` }, inner);
    const figure = el("figure", { class: "chart", id: name }, el("figcaption", {}, title),
      el("div", { class: "plot" }, axis, picture, el("p", { class: "x-label", "aria-hidden": "true" }, "round")));
    if (drawn.length > 1)
      figure.append(el("ul", { class: "legend" }, ...drawn.map((line) => el("li", {},
        svg("svg", { class: "swatch", width: 30, height: 12, "aria-hidden": "true" }, svg("line", { class: `line ${line.look}`, x1: 1, x2: 29, y1: 6, y2: 6 })), line.label))));
    return figure;
  }

  function barChart(name, title, records) {
    const rows = records.filter((r) => Object.keys(r.seconds).length).slice(-MOST_BARS);
    if (!rows.length) return null;
    const sum = (r) => Object.values(r.seconds).reduce((a, b) => a + b, 0);
    const longest = Math.max(...rows.map(sum)) || 1;
    const phases = [...PHASES.filter((p) => rows.some((r) => p in r.seconds)),
      ...new Set(rows.flatMap((r) => Object.keys(r.seconds)).filter((p) => !PHASES.includes(p)))];
    const look = (phase) => PHASES.includes(phase) ? phase : "other";
    const bars = el("div", { class: "bars", role: "img", "aria-label": `${title}. Round ${rows[rows.length - 1].round}: ${seconds(sum(rows[rows.length - 1]))}.` });
    for (const r of rows) {
      const bar = svg("svg", { class: "bar", height: 18 }, svg("line", { class: "grid", x1: 0, x2: "100%", y1: 17.5, y2: 17.5 }));
      let start = 0;
      for (const phase of phases) {
        const width = 100 * (r.seconds[phase] || 0) / longest;
        if (width > 0) bar.append(svg("rect", { class: look(phase), x: `${start}%`, y: 0, width: `${width}%`, height: 18 }, svg("title", {}, `Round ${r.round}, ${phase}: ${seconds(r.seconds[phase])}`)));
        start += width;
      }
      bars.append(el("p", { class: "bar-label" }, el("span", {}, `Round ${whole(r.round)}`), el("span", { class: "bar-note" }, seconds(sum(r)))), bar);
    }
    return el("figure", { class: "chart", id: name }, el("figcaption", {}, title), bars,
      el("ul", { class: "legend" }, ...phases.map((phase) => el("li", {}, svg("svg", { class: "swatch", width: 14, height: 12, "aria-hidden": "true" }, svg("rect", { class: look(phase), width: 14, height: 12 })), phase))));
  }

  const digitsFor = (ticks) => { const step = ticks.length > 1 ? ticks[1] - ticks[0] : 0.1; return step >= 0.00999 ? 0 : step >= 0.00099 ? 1 : 2; };

  // --- parts of the page; each is drawn anew only where its part of the document has changed ---

  const drawn = new Map();
  function changed(name, part) {
    const text = JSON.stringify(part);
    if (drawn.get(name) === text) return false;
    drawn.set(name, text);
    return true;
  }

  function head(status, extra) {
    say(id("heading"), status ? status.heading : "Waiting for a run to start");
    id("heading").className = status && over(status) ? status.state : "";
    document.title = `${status ? status.heading : "Waiting"} · QuanCrypt`;
    const error = (status && status.error) || extra.problem;
    id("error").hidden = !error;
    say(id("error"), error || "");
    id("report").hidden = !extra.report;
    say(id("report"), status && over(status) ? "Open the report" : "Report of the rounds so far");
    if (!status) return;
    const facts = status.facts, names = ["method", "dataset", "model"].filter((name) => name in facts).map((name) => facts[name]);
    say(id("lead"), [...names, `training ${status.training.slice(0, 8)}`].join(" · "));
    if (!changed("progress", [status.state, status.rounds, status.finished, status.phase])) return;
    const total = Math.max(1, status.rounds), done = 100 * Math.min(1, status.finished / total), phase = status.phase;
    const share = phase && phase.asked ? Math.min(1, (phase.answered + phase.failed) / phase.asked) : 0;
    const bar = id("progress");
    bar.setAttribute("class", `progress ${status.state}`);
    bar.setAttribute("aria-label", `Progress: ${status.finished} of ${counted(status.rounds, "round")}`);
    bar.replaceChildren(svg("rect", { class: "track", width: "100%", height: 10 }), svg("rect", { class: "done", width: `${done}%`, height: 10 }),
      svg("rect", { class: "running", x: `${done}%`, width: `${share * (100 - done ? Math.min(100 - done, 100 / total) : 0)}%`, height: 10 }));
  }

  function tile(label, figure, note, look = "") {
    return el("div", { class: look }, el("dt", {}, label), el("dd", {}, el("strong", {}, figure), " ", el("span", {}, note)));
  }

  function tiles(status) {
    const { records, totals, clients } = status, last = records[records.length - 1];
    if (!changed("tiles", [records, totals, clients, status.phase, status.state])) return;
    const found = [], scored = records.filter((r) => known(r.test_accuracy));
    if (scored.length) {
      const best = scored.reduce((a, b) => b.test_accuracy > a.test_accuracy ? b : a), end = scored[scored.length - 1];
      const before = scored.length > 1 ? end.test_accuracy - scored[scored.length - 2].test_accuracy : null;
      found.push(tile("Test accuracy", percent(end.test_accuracy), (known(before) ? `${before >= 0 ? "+" : "−"}${(100 * Math.abs(before)).toFixed(2)} points in round ${end.round}; ` : "") + `best ${percent(best.test_accuracy)} in round ${best.round}`));
    } else if (last && known(last.train_loss)) found.push(tile("Training loss", loss(last.train_loss), `round ${last.round}`));
    const asked = clients.filter((c) => c.state !== "idle"), wrong = asked.filter((c) => c.state === "lost" || c.state === "refused").length;
    if (status.state === "waiting" && known(status.needed)) found.push(tile("Clients", `${status.connected || 0} of ${status.needed}`, "connected"));
    else if (asked.length) found.push(tile("Clients", `${asked.filter((c) => c.state === "answered").length} of ${asked.length}`, `answered${wrong ? `, ${wrong} lost or refused` : ""}`, wrong ? "wrong" : ""));
    else if (clients.length) found.push(tile("Clients", whole(clients.length), "have taken part"));
    if (totals.upload || totals.received) found.push(tile("Uploaded by one client", size(totals.upload), `all rounds${last && known(last.upload) ? `; ${size(last.upload)} in round ${last.round}` : ""}`));
    const timed = records.filter((r) => known(r.wall_seconds) && !r.failed), left = status.rounds - status.finished;
    const recent = timed.slice(-10), mean = recent.length ? recent.reduce((a, r) => a + r.wall_seconds, 0) / recent.length : null;
    found.push(tile("Time", "", mean === null ? "no round is over yet" : `${seconds(mean)} a round${!over(status) && left > 0 ? `; about ${span(mean * left)} left` : ""}`));
    id("tiles").replaceChildren(...found);
    found[found.length - 1].querySelector("strong").id = "elapsed";
    const bad = totals.refused + totals.lost + totals.failed_rounds;
    if (bad || totals.ignored) id("tiles").append(tile("Trouble", counted(bad, "time"), [[totals.lost, "lost"], [totals.refused, "refused"], [totals.ignored, "ignored"], [totals.failed_rounds, totals.failed_rounds === 1 ? "round failed" : "rounds failed"]].filter(([n]) => n).map((pair) => pair.join(" ")).join(", "), bad ? "wrong" : ""));
  }

  function spent(parts) { return Object.entries(parts).map(([name, value]) => `${name} ${seconds(value)}`).join(", "); }

  function clients(status) {
    id("clients").hidden = !status.clients.length;
    if (!changed("clients", status.clients)) return;
    const sorted = [...status.clients].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || (a.name || a.node).localeCompare(b.name || b.node, "en", { numeric: true }));
    const many = sorted.length > MOST_ROWS;
    say(id("clients-caption"), many ? `${MOST_ROWS} of ${whole(sorted.length)} clients, those in trouble first` : counted(sorted.length, "client"));
    say(id("clients-note"), "Uploaded: the last reply. Its seconds: measured by the client itself.");
    id("client-rows").replaceChildren(...sorted.slice(0, MOST_ROWS).map((c) => el("tr", { class: c.state },
      el("th", { scope: "row", class: "name", title: `node ${c.node}` }, el("span", { class: "row-name" }, el("bdi", {}, c.name || c.node))),
      el("td", { class: c.state }, ...(SIGNS[c.state] ? [el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[c.state])] : []), c.state),
      el("td", { class: "number", ...(known(c.since) ? { "data-since": c.since } : {}) }, known(c.since) ? "" : NOTHING),
      el("td", { class: "number" }, size(c.bytes)), el("td", { class: "number" }, size(c.bytes_all)),
      el("td", { class: "number" }, whole(c.answered_all)), el("td", { class: "number" }, whole(c.refused_all + c.lost_all)),
      el("td", { class: `words${c.reason ? " why" : ""}` }, el("bdi", {}, c.reason || spent(c.seconds))))));
  }

  function rounds(status) {
    const records = status.records;
    id("progressing").hidden = !records.length;
    if (!records.length || !changed("records", records)) return;
    const ends = [records[0].round, records[records.length - 1].round];
    const take = (pick) => thinned(records.filter((r) => !r.failed && known(pick(r))).map((r) => [r.round, pick(r)]));
    const shares = (t, ticks) => percent(t, digitsFor(ticks)), plain = (t) => String(t);
    id("charts").replaceChildren(...[
      lineChart("chart-accuracy", "Test accuracy", ends, [{ label: "test accuracy", look: "c0 d0", points: take((r) => r.test_accuracy) }], (v) => percent(v), shares, true),
      lineChart("chart-loss", "Loss", ends, [{ label: "training loss", look: "c1 d0", points: take((r) => r.train_loss) }, { label: "test loss", look: "c3 d1", points: take((r) => r.test_loss) }], loss, plain),
      barChart("chart-time", records.length > MOST_BARS ? `Seconds of the last ${MOST_BARS} rounds` : "Seconds of each round", records),
      lineChart("chart-bytes", "Bytes of one client", ends, [{ label: "uploaded", look: "c0 d0", points: take((r) => r.upload) }, { label: "downloaded", look: "c1 d1", points: take((r) => r.download) }], size, roundSize),
    ].filter(Boolean));
    const last = records.slice(-MOST_ROUNDS).reverse();
    say(id("rounds-caption"), records.length > MOST_ROUNDS ? `The last ${MOST_ROUNDS} rounds, the latest first` : "Every round, the latest first");
    id("round-rows").replaceChildren(...last.map((r) => el("tr", {},
      el("th", { scope: "row", class: "number" }, whole(r.round)),
      ...[percent(r.test_accuracy), loss(r.test_loss), loss(r.train_loss), percent(r.pruning_rate, 1), whole(r.participants), whole(r.lost), size(r.upload), size(r.download), seconds(r.wall_seconds)].map((text) => el("td", { class: "number" }, text)),
      el("td", { class: `words ${r.failed ? "failed" : "ok"}` }, r.failed ? `failed: ${r.failed}` : known(r.weight) ? `counted, total weight ${whole(r.weight)}` : "counted"))));
  }

  function events(status) {
    id("happened").hidden = !status.events.length;
    if (!changed("events", status.events)) return;
    id("events").replaceChildren(...[...status.events].reverse().map((e) => {
      const when = new Date(1000 * e.at);
      const what = [e.name ? `${e.name}: ` : "", e.text, e.phase ? ` (${e.phase}${known(e.nbytes) ? `, ${size(e.nbytes)}` : ""})` : ""].join("");
      return el("li", {}, el("time", { datetime: when.toISOString() }, when.toLocaleTimeString("en-GB")), el("span", { class: LOOKS.includes(e.kind) ? e.kind : "" }, el("bdi", {}, what)));
    }));
  }

  function facts(status) {
    const items = Object.entries(status.facts);
    id("about").hidden = !items.length;
    if (!changed("facts", items)) return;
    id("facts").replaceChildren(...items.map(([name, value]) => el("div", { class: value.length > 90 ? "long" : value.length <= 24 ? "short" : "" }, el("dt", {}, name), el("dd", {}, el("bdi", {}, value)))));
  }

  function announce(status, before) {
    if (!before || before.training !== status.training) return;
    if (status.state !== before.state) say(id("news"), status.heading);
    else if (status.finished > before.finished) {
      const last = status.records[status.records.length - 1];
      if (last) say(id("news"), last.failed ? `Round ${last.round} failed: ${last.failed}` : `Round ${last.round} is finished${known(last.test_accuracy) ? `, test accuracy ${percent(last.test_accuracy)}` : ""}`);
    }
  }

  function show(document_) {
    const before = shown && shown.status, status = document_.status;
    shown = document_;
    head(status, document_);
    if (!status) return;
    for (const part of [tiles, clients, rounds, events, facts]) part(status);
    announce(status, before);
  }

  // --- what changes by itself: clocks, and whether anybody is there ---

  function tick() {
    const status = shown && shown.status;
    let look = "live", text = "Live";
    if (failures > 1 || (failures && !lastAnswer)) {
      look = "gone";
      text = lastAnswer ? `Connection lost ${span((Date.now() - lastAnswer) / 1000)} ago; trying again` : "No connection; trying again";
    } else if (!shown) { look = "connecting"; text = "Connecting …"; }
    else if (!status) { look = "waiting"; text = "Connected; no run has started yet"; }
    else if (over(status)) { look = "over"; text = "The run is over"; }
    else if (now() - status.updated > STALE) { look = "stale"; text = `No news from the server for ${span(now() - status.updated)}: it may have stopped`; }
    id("link").className = `link ${look}`;
    document.body.className = look;
    // A screen reader hears of a new state, not of every second.
    if (look === "gone" || look === "stale") { id("link-text").setAttribute("aria-live", tick.look === look ? "off" : "polite"); }
    tick.look = look;
    say(id("link-text"), text);
    if (!status) return;
    const at = over(status) ? status.ended || status.updated : look === "live" ? now() : status.updated;
    for (const cell of document.querySelectorAll("[data-since]")) say(cell, span(at - Number(cell.getAttribute("data-since"))));
    if (id("elapsed")) say(id("elapsed"), known(status.started) ? span(at - status.started) : NOTHING);
    const phase = status.phase;
    say(id("phase"), phase ? `${phase.name}: ${phase.answered} of ${phase.asked} answered${phase.failed ? `, ${phase.failed} lost or refused` : ""}, for ${span(at - phase.since)}` : "");
  }

  async function poll() {
    let wait = shown && shown.status && over(shown.status) ? SLOWLY : EVERY;
    try {
      const answer = await fetch("status.json", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PATIENCE) });
      if (answer.status !== 200 && answer.status !== 304) throw new Error(String(answer.status));
      const sent = Number(answer.headers.get("X-Now"));
      if (answer.status === 200) {
        const document_ = await answer.json();
        tag = answer.headers.get("ETag");
        offset = sent ? sent - Date.now() / 1000 : 0;
        show(document_);
      } else if (sent) offset = sent - Date.now() / 1000;
      lastAnswer = Date.now();
      failures = 0;
    } catch (error) {
      failures += 1;
      wait = Math.min(SLOWLY, EVERY * failures);
    }
    tick();
    setTimeout(poll, document.hidden ? SLOWLY : wait);
  }

  document.addEventListener("visibilitychange", tick);
  setInterval(tick, 1000);
  poll();
})();
