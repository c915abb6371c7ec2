// The picture: the image and what is drawn on it, in pixels of the shown image.
// Okabe and Ito's colours, which most colour-blind readers can tell apart; finest level first.
const COLOURS = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00", "#ffffff"];
const BOX_COLOUR = "#d55e00";
const OTHER_COLOUR = "#f0e442";      // of other queries and tokens
const picture = document.getElementById("picture");
const side = Math.max(data.image.width, data.image.height);

const colourOf = (index) => COLOURS[index % COLOURS.length];

/** The colour of a point: of its level, or of its head where the reader wants that. */
const colourOfPoint = (point) => colourOf(document.getElementById("by-head").checked ? point.head : point.level);

function element(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const drawingLayers = [element("g", {}), element("g", {})];     // of the picture, and of the one beside it
let layerOfDrawing = drawingLayers[0];

function startPicture() {
  [picture, document.getElementById("second-picture")].forEach((svg, index) => {
    svg.style.setProperty("--shape", data.image.width / data.image.height);
    svg.setAttribute("viewBox", `0 0 ${data.image.width} ${data.image.height}`);
    const all = { width: data.image.width, height: data.image.height };
    // A little darker than it is, so that the points stand out.
    svg.append(element("image", { href: data.image.source, ...all }),
      element("rect", { ...all, fill: "#000", "fill-opacity": 0.22, "pointer-events": "none" }), drawingLayers[index]);
  });
}

/** Draw on the picture beside the first. */
function onSecondPicture(draw) {
  layerOfDrawing = drawingLayers[1];
  draw();
  layerOfDrawing = drawingLayers[0];
}

/** A line with a dark one below it, visible on any background. */
function outlined(name, attributes, colour, width) {
  const line = { fill: "none", ...attributes };
  return element("g", { "pointer-events": "none" },
    element(name, { ...line, stroke: "#000", "stroke-opacity": 0.55, "stroke-width": (width + 1.6) * side / 700 }),
    element(name, { ...line, stroke: colour, "stroke-width": width * side / 700 }));
}

function drawBox(box, colour, width, opacity = 1, dashes = "none") {
  const drawn = outlined("rect", { ...box, rx: side / 250, "stroke-dasharray": dashes }, colour, width);
  drawn.setAttribute("opacity", opacity);
  layerOfDrawing.append(drawn);
}

/** A cross at a point, and the box if the reference is one; a query of DETR has none. */
function drawReference(reference) {
  if (!reference.length) return;
  if (reference.length === 4) drawBox(rectangle(reference), "#fff", 1.2);
  drawCross(reference[0], reference[1]);
}

function drawCross(x, y, colour = "#fff") {
  const [across, down, arm] = [x * data.image.width, y * data.image.height, side / 60];
  const d = `M${across - arm} ${down}H${across + arm}M${across} ${down - arm}V${down + arm}`;
  layerOfDrawing.append(outlined("path", { d }, colour, 2));
}

const radiusOf = (share) => Math.max(side / 330, side * 0.021 * Math.sqrt(share));

/** A disc for each point, the greatest weights on top; its area and opacity follow the weight. */
function drawPoints(points, greatest) {
  const before = drawnPlaces.get(layerOfDrawing) ?? new Map();
  const now = new Map();
  for (const point of [...points].sort((one, other) => one.weight - other.weight)) {
    const share = point.weight / greatest;
    const place = { cx: point.x * data.image.width, cy: point.y * data.image.height };
    const disc = element("circle", {
      class: "point", ...place, r: radiusOf(share), "fill-opacity": 0.3 + 0.65 * share,
      fill: colourOfPoint(point), stroke: "#000", "stroke-opacity": 0.35 + 0.5 * share, "stroke-width": side / 900,
    });
    disc.drawn = point;
    now.set(point.place, place);
    layerOfDrawing.append(disc);
    if (share > 0.1) glide(disc, before.get(point.place), place);     // the eye follows few, and moving many is slow
  }
  drawnPlaces.set(layerOfDrawing, now);
}

// Where the discs of a picture were drawn last, by the place of the point among its row.
const drawnPlaces = new Map();
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

/** Move a disc from where the same point was before, unless the reader wants no motion. */
function glide(disc, from, to) {
  if (!from || still.matches) return;
  const [across, down] = [from.cx - to.cx, from.cy - to.cy];
  if (Math.hypot(across, down) < side / 500) return;
  disc.animate([{ transform: `translate(${across}px, ${down}px)` }, { transform: "none" }],
    { duration: 260, easing: "ease-out" });
}

/** A faint line from the reference to each point that counts: its offset. */
function drawOffsets(reference, points, greatest) {
  if (!reference.length) return;
  const [x, y] = [reference[0] * data.image.width, reference[1] * data.image.height];
  for (const point of points.filter(({ weight }) => weight > 0.08 * greatest)) {
    layerOfDrawing.append(element("line", {
      x1: x, y1: y, x2: point.x * data.image.width, y2: point.y * data.image.height, stroke: colourOfPoint(point),
      "stroke-width": side / 450, "stroke-opacity": 0.25 + 0.5 * point.weight / greatest, "pointer-events": "none",
    }));
  }
}

/** Rings in place of discs, for a second reading. */
function drawRings(points) {
  for (const point of points) {
    layerOfDrawing.append(element("circle", {
      cx: point.x * data.image.width, cy: point.y * data.image.height, fill: "none", "pointer-events": "none",
      r: Math.max(side / 400, side * 0.016 * Math.sqrt(point.weight)), "stroke-width": side / 350,
      stroke: colourOfPoint(point),
    }));
  }
}

/** A heat map over the whole image, from transparent vermilion to opaque yellow. */
function drawMap({ values, height, width }) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const pixels = new ImageData(width, height);
  values.forEach((value, cell) => pixels.data.set(
    [213 + 27 * value, 94 + 134 * value, 66 * value, 220 * Math.sqrt(value)], 4 * cell));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  layerOfDrawing.append(element("image", {
    href: canvas.toDataURL(), width: data.image.width, height: data.image.height, preserveAspectRatio: "none",
    "pointer-events": "none",
  }));
}

const mark = element("circle", { fill: "none", stroke: "#fff", "stroke-width": side / 250, "pointer-events": "none" });

/** A ring around the chosen point. */
function markPoint(point) {
  mark.setAttribute("cx", point.x * data.image.width);
  mark.setAttribute("cy", point.y * data.image.height);
  mark.setAttribute("r", side * 0.022);
  layerOfDrawing.append(mark);
}
