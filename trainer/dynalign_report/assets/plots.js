// The plots of the report and of the live page: values become Plotly traces in the theme's colours.

const markers = ["circle", "square", "diamond", "triangle-up", "x", "star", "hexagon", "cross"];
const dashes = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function traceOf(line, index, kind) {
  const shade = colour(`--series-${index % 8}`);
  const common = { name: line.label || " ", x: line.x, y: line.y, showlegend: Boolean(line.label) };
  if (kind === "bar") return { ...common, type: "bar", marker: { color: shade } };
  const measured = line.low.some((low) => low !== null);
  return {
    ...common,
    type: "scatter",
    mode: "lines+markers",
    line: { color: shade, width: 2, dash: dashes[index % dashes.length] },
    marker: { color: shade, size: 8, symbol: markers[index % markers.length] },
    error_y: measured && {
      type: "data",
      symmetric: false,
      array: line.high.map((high, i) => (high === null ? 0 : high - line.y[i])),
      arrayminus: line.low.map((low, i) => (low === null ? 0 : line.y[i] - low)),
      color: shade,
      thickness: 1.5,
      width: 5,
    },
  };
}

function layoutOf(chart, barmode) {
  const ink = colour("--ink");
  const grid = colour("--line");
  const iterations = [...new Set(chart.lines.flatMap((line) => line.x))];
  const axis = { color: ink, gridcolor: grid, linecolor: grid, zeroline: false, automargin: true, fixedrange: true };
  const positive = chart.lines.every((line) => [...line.y, ...line.low].every((value) => value === null || value >= 0));
  const bounded = chart.unit.endsWith("0 to 1") ? { autorangeoptions: { clipmin: 0, clipmax: 1 } } : {};
  const few = iterations.length <= 12;
  const ends = { range: [Math.min(...iterations) - 0.5, Math.max(...iterations) + 0.5] };
  return {
    autosize: true,
    height: 240 + 22 * Math.ceil((chart.lines.length - 1) / 2),
    margin: { l: 8, r: 8, t: 8, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 13, color: ink },
    barmode,
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("--surface"), bordercolor: grid, font: { color: ink } },
    legend: { orientation: "h", yanchor: "bottom", y: 1.02, x: 0, font: { color: ink } },
    xaxis: { ...axis, title: { text: "iteration", font: { size: 13 }, standoff: 6 }, tickformat: "d", ...(few ? { dtick: 1 } : {}), ...ends },
    yaxis: { ...axis, rangemode: chart.kind === "bar" ? "tozero" : positive ? "nonnegative" : "normal", ...bounded },
    shapes:
      chart.reference === null
        ? []
        : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: chart.reference, y1: chart.reference, line: { color: ink, width: 1, dash: "dot" } }],
  };
}

/** Draw a chart into its place, or change what is drawn there. */
function drawChart(place, chart, barmode = "stack") {
  const traces = chart.lines.map((line, index) => traceOf(line, index, chart.kind));
  place.dataset.drawn = "";
  return Plotly.react(place, traces, layoutOf(chart, barmode), { displayModeBar: false, responsive: true });
}
