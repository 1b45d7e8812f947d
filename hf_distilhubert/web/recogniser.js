// The recogniser, in a worker so that the page stays alive meanwhile.
// {settings} loads it; {samples}, a Float32Array of 16 kHz, has it listen.
// It answers {loaded} (0 to 1), {ready}, {heard} (0 to 1), {text, seconds}, {error}.

const SAMPLING_RATE = 16_000;
const RUNTIME = 'ort-wasm-simd-threaded';
// What is longer is heard in overlapping windows, of which the edges do not count: memory grows with the
// square of a window. Input and group norm are taken over each, so text may differ a little from that of
// `distilhubert transcribe`, which takes them over the whole.
const MARGIN_SECONDS = 5;

let recogniser;

self.onmessage = async ({ data }) => {
  try {
    if (data.settings) {
      recogniser = load(data.settings);
      await recogniser;
      self.postMessage({ ready: true });
    } else {
      self.postMessage(await transcribe(data.samples));
    }
  } catch (error) {
    self.postMessage({ error: error.message });
  }
};

async function load(settings) {
  const { env, AutoModelForCTC, AutoProcessor, AutoTokenizer } = await fetchLibrary(settings.library);
  Object.assign(env, { allowLocalModels: true, allowRemoteModels: false, localModelPath: '/' });
  // Another model may lie under the same address tomorrow.
  Object.assign(env, { useBrowserCache: false, useWasmCache: false });
  const { wasm } = env.backends.onnx;
  wasm.numThreads = 1; // more need memory that is shared, which a page has to be isolated for
  // The build without WebGPU is half as large.
  const elsewhere = wasm.wasmPaths.mjs.replace(/[^/]*$/, '');
  const folder = settings.runtime ? new URL(settings.runtime, self.location).href : elsewhere;
  wasm.wasmPaths = { mjs: `${folder}${RUNTIME}.mjs`, wasm: `${folder}${RUNTIME}.wasm` };
  const processor = await AutoProcessor.from_pretrained('model');
  const tokenizer = await AutoTokenizer.from_pretrained('model');
  const model = await AutoModelForCTC.from_pretrained('model', {
    device: 'wasm',
    progress_callback: ({ status, file, loaded, total }) => {
      if (status === 'progress' && file.endsWith('.onnx')) self.postMessage({ loaded: loaded / total });
    },
  });
  return { processor, tokenizer, model, stride: settings.stride };
}

async function fetchLibrary(address) {
  try {
    return await import(address);
  } catch {
    throw new Error(`${address} cannot be fetched; distilhubert demo --help says how to do without a network`);
  }
}

async function transcribe(samples) {
  const { processor, tokenizer, model, stride } = await recogniser;
  const started = performance.now();
  const ids = [];
  for (const { start, end, from, to } of windows(samples.length, stride)) {
    const { logits } = await model(await processor(samples.subarray(start, end)));
    ids.push(...bestTokens(logits).slice((from - start) / stride, to && (to - start) / stride));
    self.postMessage({ heard: end / samples.length });
  }
  const text = tokenizer.decode(ids, { skip_special_tokens: true }).trim();
  return { text, seconds: (performance.now() - started) / 1000 };
}

// Samples [start, end) are heard; the frames that begin in [from, to) count, without `to` all from `from` on.
function* windows(length, stride) {
  const margin = Math.round((MARGIN_SECONDS * SAMPLING_RATE) / stride) * stride;
  let start = 0;
  let from = 0;
  while (length - start > 6 * margin) {
    const to = start + 5 * margin;
    yield { start, end: start + 6 * margin, from, to };
    [start, from] = [to - margin, to];
  }
  yield { start, end: length, from };
}

function bestTokens({ data, dims: [, frames, tokens] }) {
  return Array.from({ length: frames }, (_, frame) => {
    const row = data.subarray(frame * tokens, (frame + 1) * tokens);
    return row.indexOf(row.reduce((best, value) => Math.max(best, value), -Infinity));
  });
}
