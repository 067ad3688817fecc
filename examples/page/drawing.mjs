// A digit that is drawn becomes 8 by 8 pixels in the way of the data set: the ink of each 4 by 4 block of a bitmap of 32
// by 32 that the digit fills in its height.

const BITMAP = 32;
const INK = 4.5; // the width of a line in the bitmap, about that of the data
const WIDEST = 24; // the digits of the data set stand within the middle six of eight columns

/** Let the user draw on a canvas. Calls `changed(pixels)` with 64 numbers from 0 to 1 after each stroke's part. */
export function watchDrawing(canvas, changed) {
  const context = canvas.getContext("2d");
  const strokes = [];
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  };
  const redraw = () => {
    context.clearRect(0, 0, canvas.width, canvas.height);
    paint(context, strokes, 16);
    changed(strokes.length ? toPixels(strokes) : null);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    strokes.push([at(event)]);
    redraw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    strokes.at(-1).push(at(event));
    redraw();
  });
  return () => {
    strokes.length = 0;
    redraw();
  };
}

function paint(context, strokes, width) {
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round", strokeStyle: "#111" });
  for (const points of strokes) {
    context.beginPath();
    for (const [x, y] of [points[0], ...points]) context.lineTo(x, y); // a dot is a line of no length
    context.stroke();
  }
}

function toPixels(strokes) {
  const xs = strokes.flat().map(([x]) => x);
  const ys = strokes.flat().map(([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const room = BITMAP - INK;
  const scale = Math.min(room / Math.max(bottom - top, 1), (WIDEST - INK) / Math.max(right - left, 1));
  const place = ([x, y]) => [
    BITMAP / 2 + (x - (left + right) / 2) * scale,
    BITMAP / 2 + (y - (top + bottom) / 2) * scale,
  ];
  const context = new OffscreenCanvas(BITMAP, BITMAP).getContext("2d");
  paint(context, strokes.map((points) => points.map(place)), INK);
  const { data } = context.getImageData(0, 0, BITMAP, BITMAP);
  const pixels = new Float32Array(64);
  for (let y = 0; y < BITMAP; y++) {
    for (let x = 0; x < BITMAP; x++) {
      if (data[4 * (y * BITMAP + x) + 3] >= 128) pixels[8 * (y >> 2) + (x >> 2)] += 1 / 16;
    }
  }
  return pixels;
}
