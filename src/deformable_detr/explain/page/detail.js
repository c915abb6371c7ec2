// What stands below the picture: the numbers of a point, and the queries near a place.
const detail = document.getElementById("detail");

function table(headings, rows) {
  const made = document.createElement("table");
  for (const [cells, name] of [[headings, "th"], ...rows.map((cells) => [cells, "td"])]) {
    const line = made.insertRow();
    for (const cell of cells) {
      const field = document.createElement(name);
      field.textContent = cell;
      line.append(field);
    }
  }
  const around = document.createElement("div");
  around.className = "scroll";
  around.append(made);
  return around;
}

function say(title, ...parts) {
  document.getElementById("detail-title").textContent = title;
  detail.replaceChildren(...parts.map((part) => {
    if (typeof part !== "string") return part;
    const paragraph = document.createElement("p");
    paragraph.textContent = part;
    return paragraph;
  }));
}

/** Where a point lies in its level: the first of its four cells, and their bilinear weights. */
function cellOf({ x, y, level }) {
  const { validWidth, validHeight } = data.model.levels[level];
  const [across, down] = [x * validWidth - 0.5, y * validHeight - 0.5];
  const [column, line] = [Math.floor(across), Math.floor(down)];
  const [right, below] = [across - column, down - line];
  return { column, line, shares: [(1 - right) * (1 - below), right * (1 - below), (1 - right) * below, right * below] };
}

/** The four cells around a point, each as dark as it counts, and the point among them. */
function magnifier(point, shares, corners) {
  const { validWidth, validHeight } = data.model.levels[point.level];
  const places = [point.x * validWidth - 0.5, point.y * validHeight - 0.5];
  const [right, below] = places.map((place) => place - Math.floor(place));
  const svg = element("svg", {
    viewBox: "0 0 200 200", class: "magnifier", role: "img", "aria-label": "the four cells around the point",
  });
  shares.forEach((share, corner) => {
    const [x, y] = [100 * (corner & 1), 100 * (corner >> 1)];
    svg.append(element("rect", { x, y, width: 100, height: 100, fill: colourOf(point.level),
      "fill-opacity": 0.1 + 0.9 * share, stroke: "#000" }));
    const text = corners ? `${corners[corner].toFixed(3)} × ${share.toFixed(3)}` : share.toFixed(3);
    svg.append(element("text", { x: x + 50, y: y + (corner < 2 ? 20 : 90), "text-anchor": "middle" }, text));
  });
  const place = { cx: 50 + 100 * right, cy: 50 + 100 * below, r: 5 };
  svg.append(element("circle", { ...place, fill: "#fff", stroke: "#000", "stroke-width": 2 }));
  return svg;
}

/** A point in numbers; with the values of its corners where they are kept. */
function showPoint(point, query, layer) {
  const { column, line, shares } = cellOf(point);
  const place = `Head ${point.head}, level ${point.level} (stride ${data.model.levels[point.level].stride}), point `
    + `${point.point}: at ${(point.x * data.image.originalWidth).toFixed(1)}, `
    + `${(point.y * data.image.originalHeight).toFixed(1)} pixels, weight ${point.weight.toFixed(5)}.`;
  const names = ["top left", "top right", "bottom left", "bottom right"];
  const cells = names.map((name, corner) => [name, `${line + (corner >> 1)}, ${column + (corner & 1)}`]);
  const kept = query === null ? -1 : data.arithmetic.queries.indexOf(query);
  if (kept < 0) {
    say("A point", place, magnifier(point, shares, null), table(["corner", "row, column", "bilinear weight"],
      cells.map((cell, corner) => [...cell, shares[corner].toFixed(4)])));
    return;
  }
  const sums = data.arithmetic.layers[layer];
  const corners = row(sums.corners, kept).subarray(4 * point.place, 4 * point.place + 4);
  const sample = shares.reduce((sum, share, corner) => sum + share * corners[corner], 0);
  const [channel, output] = [row(sums.channels, kept)[point.head], row(sums.outputs, kept)[point.head]];
  say("A point", place, magnifier(point, shares, corners),
    table(["corner", "row, column", "value", "bilinear weight", "product"], cells.map((cell, corner) => [
      ...cell, corners[corner].toFixed(4), shares[corner].toFixed(4), (corners[corner] * shares[corner]).toFixed(4)])),
    `The sample is the sum, ${sample.toFixed(4)}; times the weight of the point ${(sample * point.weight).toFixed(4)}. `
    + `The sum over all points of this head is ${output.toFixed(4)}, before the output projection. Values are those of `
    + `channel ${channel}, where this sum is largest.`);
}

function showNearest(x, y) {
  const place = `${Math.round(x * data.image.originalWidth)}, ${Math.round(y * data.image.originalHeight)}`;
  const found = new Set(data.detections.map((each) => each.query));
  const rows = nearestQueries(x, y, 5).map(({ query, score, label, distance }) => {
    const below = `below the threshold ${data.model.threshold.toFixed(2)}`;
    const leftOut = "left out: it overlaps a better one of its class, or enough were better";
    const verdict = found.has(query) ? "found" : score < data.model.threshold ? below : leftOut;
    return [data.classes[label], String(query), score.toFixed(3),
      (distance * data.image.originalWidth / data.image.width).toFixed(0), verdict];
  });
  say(`The queries that came nearest to ${place}`,
    table(["class", "query", "score", "pixels away", "what became of it"], rows));
}
