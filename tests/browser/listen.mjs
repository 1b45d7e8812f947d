// What exported folders hear in Node: `node listen.mjs '{"exports": [[FOLDER, FILE], …], "clips": […]}'`.
// FOLDER is read by transformers.js, FILE (its model) by ONNX Runtime's WebAssembly, which browsers run.
// Clips are raw float32 at 16 kHz. Prints, as JSON, a list for each export with text and logits for each clip.
import { readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { env, pipeline } from '@huggingface/transformers';
import * as web from 'onnxruntime-web';

const jobs = JSON.parse(process.argv[2]);
env.allowRemoteModels = false;
web.env.wasm.numThreads = 1;

function read(clip) {
  const bytes = readFileSync(clip);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

async function listen(folder, file) {
  env.localModelPath = dirname(folder);
  const hear = await pipeline('automatic-speech-recognition', basename(folder));
  const session = await web.InferenceSession.create(readFileSync(file), { executionProviders: ['wasm'] });
  const heard = [];
  for (const samples of jobs.clips.map(read)) {
    const { text } = await hear(samples);
    const { input_values: values, attention_mask: mask } = await hear.processor(samples);
    const { logits } = await session.run({
      input_values: new web.Tensor('float32', values.data, values.dims),
      attention_mask: new web.Tensor('int64', mask.data, mask.dims),
    });
    heard.push({ text, logits: Array.from(logits.data), dims: logits.dims });
  }
  return heard;
}

const heard = [];
for (const [folder, file] of jobs.exports) heard.push(await listen(folder, file));
console.log(JSON.stringify(heard));
