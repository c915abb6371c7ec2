// What stands beside the picture: the numbers of a point, how weights are shared, and the queries near a place.
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

function textElement(name, className, ...parts) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...parts);
  return made;
}

/** How each head shares its weight among the levels, in percent, as a table of shades. */
function weightsTable(points) {
  const { heads, levels } = data.model;
  const made = table(["Head", ...levels.map(({ stride }) => `stride ${stride}`)],
    Array.from({ length: heads }, (_, head) => [String(head + 1), ...levels.map((_, level) => {
      const own = points.filter((point) => point.head === head && point.level === level);
      return (100 * own.reduce((sum, { weight }) => sum + weight, 0)).toFixed(0);
    })]));
  const grid = made.firstChild;
  grid.className = "matrix";
  [...grid.rows].slice(1).forEach((line, head) => {
    [...line.cells].slice(1).forEach((cell, level) => {
      cell.style.setProperty("--share", Number(cell.textContent) / 100);
      cell.style.setProperty("--level", colourOfPoint({ head, level }));
      cell.classList.toggle("strong", Number(cell.textContent) > 65);
    });
  });
  return made;
}

/** Which point it is, and where. */
function placeOfPoint(point) {
  const facts = {
    Head: point.head + 1, Level: `${point.level + 1} (stride ${data.model.levels[point.level].stride})`,
    Point: point.point + 1, Weight: point.weight.toFixed(4),
    "Place in pixels": `${(point.x * data.image.originalWidth).toFixed(1)}, `
      + `${(point.y * data.image.originalHeight).toFixed(1)}`,
  };
  return textElement("p", "point-place", ...Object.entries(facts).map(([name, value]) =>
    textElement("span", "", `${name} `, textElement("b", "", String(value)))));
}

/** The same number in Python, counted from 0. */
function inPython(point, query, layer) {
  const place = `${point.head}, ${point.level}, ${point.point}`;
  return textElement("p", "", textElement("code", "", `explanation.weights[${layer}][${query}, ${place}]`));
}

const CORNERS = ["top left", "top right", "bottom left", "bottom right"];

/** A point in numbers; with the values of its corners where they are kept. */
function showPoint(point, query, layer) {
  const { column, line, shares } = cellOf(point);
  const cells = CORNERS.map((name, corner) => [name, `${line + (corner >> 1)}, ${column + (corner & 1)}`]);
  const kept = query === null ? -1 : data.arithmetic.queries.indexOf(query);
  if (kept < 0) {
    say("A sampling point", placeOfPoint(point), magnifier(point), table(["corner", "row, column",
      "bilinear weight"], cells.map((cell, corner) => [...cell, shares[corner].toFixed(4)])),
      "The values of the four cells are kept in the page for the detected objects only.");
    return;
  }
  const sums = data.arithmetic.layers[layer];
  const corners = row(sums.corners, kept).subarray(4 * point.place, 4 * point.place + 4);
  const sample = shares.reduce((sum, share, corner) => sum + share * corners[corner], 0);
  const [channel, output] = [row(sums.channels, kept)[point.head], row(sums.outputs, kept)[point.head]];
  const products = cells.map((cell, corner) => [...cell, corners[corner].toFixed(4), shares[corner].toFixed(4),
    (corners[corner] * shares[corner]).toFixed(4)]);
  say("A sampling point", placeOfPoint(point), magnifier(point),
    table(["corner", "row, column", "value", "× bilinear", "= product"], products),
    textElement("p", "equation", `${sample.toFixed(4)} × ${point.weight.toFixed(4)} = `,
      textElement("b", "", (sample * point.weight).toFixed(4)),
      textElement("small", "", "The sample (the sum of the four products) times the attention weight is what this "
        + "point adds to its head's sum.")),
    `All points of this head sum to ${output.toFixed(4)}, before the output projection. The values are those of `
    + `channel ${channel} of the head, counted from 0: the one where this sum is largest.`,
    inPython(point, query, layer));
}

/** The queries that one listens to, in numbers. */
function showHeardTable(queries, weights) {
  const rows = Array.from(queries, (query, rank) => [
    data.classes[row(data.allQueries.labels, query)[0]],
    query === data.queries.index[state.row] ? `${query} (itself)` : String(query),
    row(data.allQueries.scores, query)[0].toFixed(3),
    `${(100 * weights[rank]).toFixed(1)} %`]);
  say("The queries that it listens to most", table(["class", "query", "score", "weight"], rows.slice(0, 8)),
    `Mean over the heads; the weights of all ${data.model.numQueries} queries sum to 100 %. Class, score and box are `
    + "those of the last layer.");
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
    "Boxes that cover the place come first, then those less far away; among equals the better score.",
    table(["class", "query", "score", "pixels away", "what became of it"], rows));
}
