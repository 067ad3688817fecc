// node steps.mjs MODEL WEIGHTS DATA BATCH STEPS [SAVED]: train in onnxruntime-web and print the losses and the time as JSON.
// The rows of the data are taken in their order, from the start again when they end.
import { readFile, writeFile } from "node:fs/promises";
import * as ort from "onnxruntime-web/wasm";
import { Training, readTensors, takeRows } from "./train.mjs";

ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const [model, weights, data] = await Promise.all(process.argv.slice(2, 5).map((path) => readFile(path)));
const [batch, steps] = process.argv.slice(5, 7).map(Number);
const began = performance.now();
const training = await Training.open(ort, new Uint8Array(model), new Uint8Array(weights));
const loaded = performance.now();
const { tensors } = readTensors(ort, new Uint8Array(data));
const samples = Object.values(tensors)[0].dims[0];
const losses = [];
const times = [];
for (let step = 0; step < steps; step++) {
  const rows = Array.from({ length: batch }, (_, place) => (step * batch + place) % samples);
  const feeds = takeRows(ort, tensors, rows);
  const start = performance.now();
  const { loss } = await training.step(feeds);
  times.push(performance.now() - start);
  losses.push(loss.data[0]);
}
times.sort((one, other) => one - other);
console.log(JSON.stringify({ losses, load_ms: loaded - began, step_ms: times[times.length >> 1] }));
if (process.argv[7]) await writeFile(process.argv[7], training.save());
