// An exported detector in the browser: an image in, detections in the image's own pixels out.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

const ENTRY = "deformable_detr";    // of the metadata

/** The detector in a file that `ddetr export --to onnx` wrote without --raw. */
export async function load(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  const file = new Uint8Array(await response.arrayBuffer());
  const { form, header } = metadata(file, url);
  if (form.raw || (form.batch ?? 1) !== 1) throw new Error(`${url}: expected a file without --raw and with --batch 1 or none`);
  const [names, preprocessing, postprocessing] =
    ["names", "preprocessing", "postprocessing"].map((field) => JSON.parse(header[field]));
  const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });

  /** The detections in an ImageBitmap, best first: {name, score, box: [left, top, right, bottom]}. */
  async function detect(image) {
    const [height, width] = resized(image, preprocessing, form.size);
    const [rows, columns] = form.size ?? [height, width];
    const images = new ort.Tensor("uint8", planes(image, width, height, columns, rows), [1, 3, rows, columns]);
    const sizes = new ort.Tensor("int64", BigInt64Array.of(BigInt(height), BigInt(width)), [1, 2]);
    const { boxes, scores, labels } = await session.run({ images, sizes }, ["boxes", "scores", "labels"]);
    const extent = [image.width, image.height, image.width, image.height];
    const found = Array.from(scores.data, (score, index) => ({
      name: names[Number(labels.data[index])],
      score,
      box: extent.map((side, edge) => side * boxes.data[4 * index + edge]),
    }));
    return suppressed(found, postprocessing.nms_threshold);
  }

  return { detect, threshold: postprocessing.threshold };
}

/** What the file says about itself. It stands at the end: the entry's name, the tag of its value, a length, JSON. */
function metadata(file, url) {
  const name = new TextEncoder().encode(ENTRY);
  let start = file.length - name.length;
  while (start > 0 && !(file[start - 1] === name.length && name.every((byte, index) => file[start + index] === byte))) start -= 1;
  if (start <= 0) throw new Error(`${url}: expected a file written by \`ddetr export\``);
  let position = start + name.length + 1;
  let length = 0;
  for (let shift = 0; ; shift += 7, position += 1) {      // seven bits a byte, the lowest first
    length += (file[position] & 127) * 2 ** shift;
    if (file[position] < 128) break;
  }
  return JSON.parse(new TextDecoder().decode(file.subarray(position + 1, position + 1 + length)));
}

/** [height, width] for the model, as `Preprocessing.resized` has them, or smaller to fit into a fixed size. */
function resized(image, preprocessing, room) {
  const sides = [image.height, image.width];
  const scale = Math.min(preprocessing.size / Math.min(...sides), preprocessing.max_size / Math.max(...sides),
    ...(room ? sides.map((side, axis) => room[axis] / side) : []));
  return sides.map((side) => Math.max(1, Math.floor(scale * side + 1e-6)));
}

/** RGB in planes, the image in the upper left corner. */
function planes(image, width, height, columns, rows) {
  const context = new OffscreenCanvas(columns, rows).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, columns, rows).data;
  return Uint8Array.from({ length: 3 * rows * columns }, (_, index) =>
    pixels[4 * (index % (rows * columns)) + Math.floor(index / (rows * columns))]);
}

/** Without those that overlap a better one of the same class by more than the threshold; 1 keeps all. */
function suppressed(found, threshold) {
  const kept = [];
  for (const each of found) {
    if (!kept.some((better) => better.name === each.name && overlap(better.box, each.box) > threshold)) kept.push(each);
  }
  return kept;
}

function overlap(one, other) {
  const area = ([left, top, right, bottom]) => Math.max(0, right - left) * Math.max(0, bottom - top);
  const common = area([Math.max(one[0], other[0]), Math.max(one[1], other[1]), Math.min(one[2], other[2]), Math.min(one[3], other[3])]);
  return common / (area(one) + area(other) - common) || 0;
}
