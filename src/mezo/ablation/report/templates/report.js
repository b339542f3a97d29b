// Draws the charts of the page from the data inside it, in the colours of light or dark.
"use strict";
(() => {
  const { charts, palette } = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 40rem)");
  const lifted = { "#000000": "#e4e7eb", "#0072B2": "#4aa3df", "#D55E00": "#f08a3c", "#009E73": "#2fc79a", "#7A6A00": "#c9b43a" };
  const symbols = ["circle", "square", "diamond", "triangle-up", "x", "star"];

  const faded = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, "0");

  function colored(trace) {
    const base = palette[trace.palette % palette.length];
    const color = dark.matches ? lifted[base] ?? base : base;
    const symbol = symbols[Math.floor(trace.palette / palette.length) % symbols.length];
    const { palette: index, band, ...rest } = trace;
    if (band) return { ...rest, fillcolor: faded(color, dark.matches ? 0.22 : 0.15), line: { ...trace.line, color: "rgba(0,0,0,0)" } };
    const drawn = { ...rest, marker: { size: 6, ...trace.marker, color, symbol } };
    if (trace.line) drawn.line = { ...trace.line, color };
    for (const bar of ["error_x", "error_y"]) if (trace[bar]) drawn[bar] = { ...trace[bar], color };
    return drawn;
  }

  function layoutOf(layout, width) {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line");
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: ink, automargin: true, fixedrange: narrow.matches, zeroline: false };
    const named = layout.yaxis.ticktext !== undefined;
    const above = named && narrow.matches;  // no room beside the rows: their names go above them
    return {
      ...layout,
      annotations: !above ? [] : layout.yaxis.tickvals.map((row, n) => ({
        x: 0, xref: "paper", xanchor: "left", y: row + 0.36, yref: "y", text: layout.yaxis.ticktext[n],
        showarrow: false, font: { size: 11 },
      })),
      width,
      height: (layout.height ?? (narrow.matches ? 320 : 340)) * (above ? 1.3 : 1),
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: narrow.matches ? 11 : 12, family: "system-ui, sans-serif" },
      margin: { l: 10, r: 10, t: 8, b: 10 },
      hovermode: "closest",
      dragmode: narrow.matches ? false : "zoom",  // a finger that scrolls the page is not to zoom a chart
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, maxheight: 0.3 },
      xaxis: { ...axis, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis, showticklabels: !above },
    };
  }

  function draw() {
    for (const place of document.querySelectorAll("[data-chart]")) {
      const { data, layout } = charts[place.dataset.chart];
      Plotly.react(place, data.map(colored), layoutOf(layout, place.clientWidth), { displayModeBar: false, responsive: false });
    }
  }

  let waiting;
  const again = () => { clearTimeout(waiting); waiting = setTimeout(draw, 100); };
  dark.addEventListener("change", draw);
  window.addEventListener("resize", again);
  draw();
})();
