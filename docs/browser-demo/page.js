// The page: a picture is chosen or dropped, its boxes are drawn, the slider hides those with lower scores.

import { load } from "./detector.js";

const MODEL = new URLSearchParams(location.search).get("model") ?? "demo.onnx";
const [file, slider, threshold, state, canvas] =
  ["file", "slider", "threshold", "state", "picture"].map((id) => document.getElementById(id));
let detector, image, found = [];

function colour(name) {
  const hue = [...name].reduce((sum, letter) => (31 * sum + letter.codePointAt(0)) % 360, 0);
  return `hsl(${hue} 85% 35%)`;
}

function draw() {
  const shown = found.filter(({ score }) => score >= slider.value);
  threshold.value = Number(slider.value).toFixed(2);
  if (!image) return;
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d");
  const line = Math.max(1, Math.max(image.width, image.height) / 300);
  context.drawImage(image, 0, 0);
  context.lineWidth = line;
  context.font = `${8 * line}px sans-serif`;
  context.textBaseline = "top";
  for (const { name, score, box: [left, top, right, bottom] } of shown.toReversed()) {
    const caption = `${name} ${score.toFixed(2)}`;
    const above = Math.max(0, top - 10 * line);
    context.strokeStyle = context.fillStyle = colour(name);
    context.strokeRect(left, top, right - left, bottom - top);
    context.fillRect(left - line / 2, above, context.measureText(caption).width + 4 * line, 10 * line);
    context.fillStyle = "white";
    context.fillText(caption, left + 1.5 * line, above + line);
  }
  canvas.setAttribute("aria-label", shown.map(({ name, score }) => `${name} ${score.toFixed(2)}`).join(", ") || "nothing found");
}

async function look(chosen) {
  try {
    const opened = await createImageBitmap(chosen);
    state.textContent = "Looking …";
    await new Promise((drawn) => setTimeout(drawn));    // the model keeps this thread busy
    const start = performance.now();
    found = await detector.detect(opened);
    image = opened;
    state.textContent = `${image.width} × ${image.height} pixels, ${((performance.now() - start) / 1000).toFixed(1)} s`;
    draw();
  } catch (error) {
    state.textContent = `${chosen.name ?? "image"}: ${error.message}`;
  }
}

file.addEventListener("change", () => file.files[0] && look(file.files[0]));
slider.addEventListener("input", draw);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (detector && event.dataTransfer.files[0]) look(event.dataTransfer.files[0]);
});

try {
  detector = await load(MODEL);
  slider.value = detector.threshold;
  file.disabled = slider.disabled = false;
  state.textContent = "Choose a picture, or drop one here. It stays in this browser.";
  draw();
} catch (error) {
  state.textContent = error.message;
}
