"use strict";
// What htmx has no attribute for: the live list, the charts, an input that is emptied once it was sent.

document.addEventListener("htmx:afterRequest", (event) => {
  const form = event.target.closest("form[data-clear]");
  if (!form || !event.detail.successful) return;
  if (event.target === form) form.elements[form.dataset.clear].value = "";
});

document.addEventListener("htmx:afterSettle", (event) => {
  const flash = document.getElementById("flash");
  if (flash && event.target !== flash && event.detail.successful) flash.replaceChildren();
  const chat = event.target.closest("#chat");
  if (chat) chat.scrollTop = chat.scrollHeight;
});

document.addEventListener("focusin", (event) => {
  if (event.target.matches("[data-copy]")) event.target.select();
});

// A list that follows what happens: asked for anew when the service says that something did, at most twice a second.
function follow(mark) {
  const list = document.querySelector(mark.dataset.refresh);
  const said = mark.textContent;
  let waiting = false;
  let source;
  function listen() {
    source = new EventSource(mark.dataset.live);
    source.addEventListener("changed", () => {
      if (waiting) return;
      waiting = true;
      setTimeout(() => { waiting = false; htmx.trigger(list, "submit"); }, 500);
    });
    source.onopen = () => { mark.textContent = said; };
    source.onerror = () => {
      mark.textContent = "Not live at this moment: it is tried again.";
      // The browser tries by itself, but not after a refusal.
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
    };
  }
  listen();
  addEventListener("pagehide", () => source.close());
}

const COLORS = { delivered: "#7540bf", not_said: "#b8860b", p50: "#1b7f3b", p95: "#b8860b", p99: "#c0392b", tokens: "#7540bf", cost: "#7540bf", ok: "#1b7f3b" };

function draw(charts) {
  const data = JSON.parse(charts.dataset.chart);
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--pico-color").trim();
  const lines = style.getPropertyValue("--pico-muted-border-color").trim();
  const axis = { stroke: ink, grid: { stroke: lines, width: 1 }, ticks: { stroke: lines } };
  for (const place of charts.querySelectorAll("[data-draw]")) {
    const names = place.dataset.draw.split(",");
    const series = names.map((name) => ({ label: name.replace("_", " "), stroke: COLORS[name], width: 2, spanGaps: false, points: { show: true, size: 4 } }));
    const options = { width: place.clientWidth, height: 200, series: [{}, ...series], axes: [axis, { ...axis, size: 60 }], scales: { y: { range: (plot, low, high) => [0, high > 0 ? high * 1.1 : 1] } } };
    const plot = new uPlot(options, [data.at, ...names.map((name) => data[name])], place);
    new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: 200 })).observe(place);
  }
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-live]").forEach(follow);
  const charts = document.getElementById("charts");
  if (charts) draw(charts);
});
