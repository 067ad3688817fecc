// Steps of training with the files that graphc exported (docs/onnx.md), in a page and under Node alike.
// onnxruntime-web itself is handed in as `ort`, since a page and Node find it in different places.

const TYPES = {
  F64: ["float64", Float64Array],
  F32: ["float32", Float32Array],
  F16: ["float16", Uint16Array],
  I64: ["int64", BigInt64Array],
  I32: ["int32", Int32Array],
  I16: ["int16", Int16Array],
  I8: ["int8", Int8Array],
  U64: ["uint64", BigUint64Array],
  U32: ["uint32", Uint32Array],
  U16: ["uint16", Uint16Array],
  U8: ["uint8", Uint8Array],
  BOOL: ["bool", Uint8Array],
};
const CODES = Object.fromEntries(Object.entries(TYPES).map(([code, [type]]) => [type, code]));

/** The tensors of a safetensors file by name, and its metadata. */
export function readTensors(ort, bytes) {
  const headerBytes = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(
    new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)),
  );
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(entries)) {
    const [type, Elements] = TYPES[dtype];
    const own = bytes.slice(8 + headerBytes + start, 8 + headerBytes + end); // a copy is aligned
    tensors[name] = new ort.Tensor(type, new Elements(own.buffer), shape);
  }
  return { tensors, metadata };
}

/** A safetensors file of tensors by name. */
export function writeTensors(tensors, metadata) {
  const header = { __metadata__: metadata };
  const parts = [];
  let end = 0;
  for (const [name, { type, dims, data }] of Object.entries(tensors)) {
    const part = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    header[name] = { dtype: CODES[type], shape: dims, data_offsets: [end, (end += part.length)] };
    parts.push(part);
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const size = new Uint8Array(8);
  new DataView(size.buffer).setBigUint64(0, BigInt(text.length), true);
  const bytes = new Uint8Array(8 + text.length + end);
  let at = 0;
  for (const part of [size, text, ...parts]) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** A training under way: a step is a function of the state and a batch, and nothing else changes. */
export class Training {
  /** Open the training step and the weights to begin with, both as bytes. */
  static async open(ort, model, weights) {
    const { tensors, metadata } = readTensors(ort, weights);
    return new Training(await openSession(ort, model), tensors, metadata);
  }

  constructor(session, state, metadata) {
    this.session = session;
    this.state = state; // all parameters, by the input that each is
    this.metadata = metadata;
    this.pairs = JSON.parse(metadata["graphc.states"]); // from each updated input to the output that replaces it
  }

  /** Train on one batch, tensors by input name. Returns the outputs, such as the loss. */
  async step(batch) {
    const results = await this.session.run({ ...batch, ...this.state });
    for (const [before, after] of Object.entries(this.pairs)) {
      this.state[before] = results[after];
      delete results[after];
    }
    return results;
  }

  /** The state as a safetensors file: the whole training, to go on with here or to load in Python. */
  save() {
    return writeTensors(this.state, this.metadata);
  }
}

/** A session on the CPU, by WebAssembly. */
export function openSession(ort, model) {
  return ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
}

/** Run a prediction with those of the weights that it asks for. */
export function predict(session, state, inputs) {
  const weights = Object.entries(state).filter(([name]) => session.inputNames.includes(name));
  return session.run({ ...Object.fromEntries(weights), ...inputs });
}

/** Rows of tensors that share their first axis: a batch. */
export function takeRows(ort, tensors, rows) {
  const taken = {};
  for (const [name, { type, dims: [, ...shape], data }] of Object.entries(tensors)) {
    const size = shape.reduce((product, length) => product * length, 1);
    const values = new data.constructor(rows.length * size);
    rows.forEach((row, place) => values.set(data.subarray(row * size, (row + 1) * size), place * size));
    taken[name] = new ort.Tensor(type, values, [rows.length, ...shape]);
  }
  return taken;
}
