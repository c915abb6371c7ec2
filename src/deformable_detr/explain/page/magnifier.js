// The four cells of the feature map around a sampling point, over the piece of the picture where they lie.

/** Where a point lies in its level: the first of its four cells, and their bilinear weights. */
function cellOf({ x, y, level }) {
  const { validWidth, validHeight } = data.model.levels[level];
  const [across, down] = [x * validWidth - 0.5, y * validHeight - 0.5];
  const [column, line] = [Math.floor(across), Math.floor(down)];
  const [right, below] = [across - column, down - line];
  return {
    column, line, right, below,
    shares: [(1 - right) * (1 - below), right * (1 - below), (1 - right) * below, right * below],
  };
}

const MAGNIFIED = 100;      // units of the drawing per cell

/** The cells with the picture below them; a corner's dot is as large as its bilinear weight. */
function magnifier(point) {
  const { column, line, right, below, shares } = cellOf(point);
  const { validWidth, validHeight } = data.model.levels[point.level];
  const all = { width: MAGNIFIED * validWidth, height: MAGNIFIED * validHeight };
  const svg = element("svg", {
    viewBox: "0 0 200 200", class: "magnifier", role: "img",
    "aria-label": "The four cells of the feature map around the point, with their bilinear weights",
  });
  svg.append(
    element("rect", { width: 200, height: 200, fill: "#14171a" }),
    element("image", {
      href: data.image.source, ...all, x: -MAGNIFIED * column, y: -MAGNIFIED * line, preserveAspectRatio: "none",
    }),
    element("rect", { width: 200, height: 200, fill: "#000", "fill-opacity": 0.3 }),
    element("path", { d: "M100 0V200M0 100H200", stroke: "#fff", "stroke-opacity": 0.6 }));
  const place = [50 + MAGNIFIED * right, 50 + MAGNIFIED * below];
  shares.forEach((share, corner) => svg.append(element("line", {
    x1: 50 + 100 * (corner & 1), y1: 50 + 100 * (corner >> 1), x2: place[0], y2: place[1], stroke: "#fff",
    "stroke-width": 1 + 5 * share, "stroke-opacity": 0.75,
  })));
  shares.forEach((share, corner) => {
    const [x, y] = [50 + 100 * (corner & 1), 50 + 100 * (corner >> 1)];
    svg.append(element("circle", {
      cx: x, cy: y, r: 4 + 14 * Math.sqrt(share), fill: colourOfPoint(point), stroke: "#000",
    }), element("text", { x, y: corner < 2 ? 18 : 192 }, share.toFixed(3)));
  });
  svg.append(element("circle", {
    cx: place[0], cy: place[1], r: 6, fill: "#fff", stroke: "#000", "stroke-width": 2.5,
  }));
  return svg;
}
