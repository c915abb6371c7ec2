// The summed attention of sampling points as a map.
const HEAT_CELLS = 160;     // of the longer side

/** The weights of points spread over the cells of their levels: { values, height, width } from 0 to 1. */
function heatOf(points) {
  const scale = HEAT_CELLS / Math.max(data.image.width, data.image.height);
  const [width, height] = [data.image.width, data.image.height].map((side) => Math.max(1, Math.round(scale * side)));
  const values = new Float32Array(width * height);
  for (const { x, y, level, weight } of points) {
    const spread = Math.max(1.5, 0.5 * width / data.model.levels[level].validWidth);
    const [across, down] = [x * width - 0.5, y * height - 0.5];
    const [left, top] = [across, down].map((place) => Math.max(0, Math.ceil(place - 3 * spread)));
    const [right, bottom] = [Math.min(width - 1, across + 3 * spread), Math.min(height - 1, down + 3 * spread)];
    for (let line = top; line <= bottom; line += 1) {
      for (let column = left; column <= right; column += 1) {
        const distance = ((line - down) ** 2 + (column - across) ** 2) / spread ** 2;
        values[line * width + column] += weight * Math.exp(-distance / 2);
      }
    }
  }
  const most = values.reduce((greatest, value) => Math.max(greatest, value), 1e-30);
  return { values: values.map((value) => value / most), height, width };
}
