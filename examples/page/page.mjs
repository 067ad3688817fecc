// The page: trains, plots the loss, says what a drawn digit is.
import { watchDrawing } from "./drawing.mjs";
import { Training, openSession, predict, readTensors, takeRows } from "./train.mjs";

const BATCH = 32;
const RATE = "state/adam/learning_rate";
const FRAME_MS = 20; // train for so long, then let the browser draw
const POINTS = 300; // of the curve; when there are more, neighbours become their mean

const $ = (id) => document.getElementById(id);
const bytes = async (name) => {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
};
const shuffled = (count) => {
  const order = Array.from({ length: count }, (_, place) => place);
  for (let place = count - 1; place > 0; place--) {
    const other = Math.floor(Math.random() * (place + 1));
    [order[place], order[other]] = [order[other], order[place]];
  }
  return order;
};

let ort, training, predicting, data, test, pixels;
let running = false;
let steps = 0;
let order = [];
let curve = { size: 1, points: [], sum: 0, count: 0 };

/** onnxruntime-web from beside the page, where `npm install` puts it, or in the same version from a CDN. */
async function loadRuntime() {
  const { dependencies } = JSON.parse(new TextDecoder().decode(await bytes("package.json")));
  const file = "dist/ort.wasm.bundle.min.mjs";
  const runtime = await import(`./node_modules/onnxruntime-web/${file}`).catch(
    () => import(`https://cdn.jsdelivr.net/npm/onnxruntime-web@${dependencies["onnxruntime-web"]}/${file}`),
  );
  runtime.env.wasm.numThreads = 1; // more need headers that http.server does not send
  runtime.env.logLevel = "error";
  return runtime;
}

async function open() {
  training = await Training.open(ort, await bytes("train.onnx"), await bytes("weights.safetensors"));
  steps = 0;
  curve = { size: 1, points: [], sum: 0, count: 0 };
  showRate(training.state[RATE].data[0]);
  for (const id of ["loss", "time"]) $(id).textContent = "–";
  await showProgress();
}

async function train() {
  let times = 0;
  let since = 0;
  while (running) {
    const frame = performance.now();
    let loss;
    do {
      if (order.length < BATCH) order = shuffled(data.input_layer.dims[0]);
      const batch = takeRows(ort, data, order.splice(0, BATCH));
      const began = performance.now();
      ({ loss } = await training.step(batch));
      times += performance.now() - began;
      since++;
      steps++;
      addPoint(loss.data[0]);
    } while (running && performance.now() - frame < FRAME_MS);
    $("loss").textContent = loss.data[0].toFixed(4);
    if (since >= 50) {
      $("time").textContent = (times / since).toFixed(2);
      times = since = 0;
      await showProgress();
    }
    drawCurve();
    await new Promise(requestAnimationFrame);
  }
  await showProgress();
}

async function showProgress() {
  const { target, ...inputs } = test;
  const logits = Object.values(await predict(predicting, training.state, inputs))[0].data;
  let right = 0;
  target.data.forEach((digit, row) => {
    const scores = logits.subarray(row * 10, row * 10 + 10);
    if (scores.indexOf(Math.max(...scores)) === Number(digit)) right++;
  });
  $("steps").textContent = steps;
  $("tested").textContent = target.data.length;
  $("accuracy").textContent = `${((100 * right) / target.data.length).toFixed(1)} %`;
  drawCurve();
  await showAnswer();
}

async function showAnswer() {
  if (!pixels || !training) {
    $("answer").textContent = "–";
    [...$("bars").children].forEach((cell, place) => {
      if (place % 3 === 1) cell.style.width = "0";
      if (place % 3 === 2) cell.textContent = "";
    });
    return;
  }
  const input = new ort.Tensor("float32", pixels, [1, 8, 8]);
  const logits = Object.values(await predict(predicting, training.state, { input_layer: input }))[0].data;
  const largest = Math.max(...logits);
  const weights = Array.from(logits, (logit) => Math.exp(logit - largest));
  const total = weights.reduce((sum, weight) => sum + weight);
  $("answer").textContent = logits.indexOf(largest);
  weights.forEach((weight, digit) => {
    $("bars").children[3 * digit + 1].style.width = `${(100 * weight) / total}%`;
    $("bars").children[3 * digit + 2].textContent = `${((100 * weight) / total).toFixed(1)} %`;
  });
}

function addPoint(loss) {
  curve.sum += loss;
  curve.count++;
  if (curve.count < curve.size) return;
  curve.points.push(curve.sum / curve.count);
  curve.sum = curve.count = 0;
  if (curve.points.length < POINTS) return;
  curve.points = Array.from({ length: POINTS / 2 }, (_, i) => (curve.points[2 * i] + curve.points[2 * i + 1]) / 2);
  curve.size *= 2;
}

function drawCurve() {
  const { points, size } = curve;
  const top = Math.max(1, Math.ceil(Math.max(0, ...points.slice(0, POINTS))));
  const y = (loss) => 230 - (220 * loss) / top;
  const x = (place) => 40 + (550 * place) / Math.max(points.length - 1, 1);
  const lines = [0, 0.25, 0.5, 0.75, 1].flatMap((part) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
    const set = (element, values) => Object.entries(values).forEach(([key, value]) => element.setAttribute(key, value));
    set(line, { x1: 40, x2: 590, y1: y(part * top), y2: y(part * top) });
    set(text, { x: 34, y: y(part * top) + 4, "text-anchor": "end" });
    text.textContent = (part * top).toString();
    return [line, text];
  });
  $("grid").replaceChildren(...lines);
  $("curve").setAttribute("d", points.map((loss, place) => `${place ? "L" : "M"}${x(place)} ${y(loss)}`).join(""));
  $("last").textContent = points.length * size;
}

function showRate(rate) {
  $("rate").value = Math.log10(rate);
  $("rate-shown").textContent = rate.toPrecision(2);
}

function changeRate() {
  const rate = 10 ** Number($("rate").value);
  training.state[RATE] = new ort.Tensor("float64", [rate], []);
  showRate(rate);
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([training.save()]));
  link.download = "weights.safetensors";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}

async function start() {
  for (let digit = 0; digit < 10; digit++) {
    const cells = ["span", "div", "span"].map((tag) => document.createElement(tag));
    cells[0].textContent = digit;
    cells[1].className = "bar";
    cells[1].style.width = "0";
    $("bars").append(...cells);
  }
  const clear = watchDrawing($("drawing"), (drawn) => {
    pixels = drawn;
    const image = new ImageData(8, 8);
    for (let place = 0; place < 64; place++) image.data[4 * place + 3] = drawn ? 255 * drawn[place] : 0;
    $("seen").getContext("2d").putImageData(image, 0, 0);
    showAnswer();
  });
  $("clear").addEventListener("click", clear);
  ort = await loadRuntime();
  predicting = await openSession(ort, await bytes("predict.onnx"));
  data = readTensors(ort, await bytes("training-data.safetensors")).tensors;
  test = readTensors(ort, await bytes("test-data.safetensors")).tensors;
  await open();
  let ended = Promise.resolve();
  const halt = () => {
    running = false;
    $("train").textContent = "Train";
    return ended;
  };
  $("train").addEventListener("click", async () => {
    if (running) return halt();
    running = true;
    $("train").textContent = "Pause";
    ended = train().catch(fail);
  });
  $("reset").addEventListener("click", () => halt().then(open).catch(fail));
  $("save").addEventListener("click", save);
  $("rate").addEventListener("input", changeRate);
  for (const id of ["train", "reset", "save"]) $(id).disabled = false;
  $("status").textContent = `onnxruntime-web ${ort.env.versions.web}, WebAssembly, one thread`;
}

function fail(error) {
  $("status").textContent = `It does not run here: ${error.message}`;
  throw error;
}

start().catch(fail);
