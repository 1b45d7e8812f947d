// Sound from a file or the microphone as mono samples at 16 kHz, and a picture of it.

const SAMPLING_RATE = 16_000;
const MIN_SAMPLES = 400;
// What browsers do to voices for calls, models did not hear in training.
const UNTOUCHED = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

// Samples of anything that the browser can decode, the mean of its channels.
export async function readSamples(blob) {
  const context = new OfflineAudioContext(1, 1, SAMPLING_RATE);
  let sound;
  try {
    sound = await context.decodeAudioData(await blob.arrayBuffer());
  } catch (error) {
    if (error.name !== 'EncodingError') throw error;
    const name = blob.name ?? 'the recording';
    throw new Error(`${name} holds no sound that this browser can decode; give WAV, FLAC, MP3 or Ogg`);
  }
  if (sound.length < MIN_SAMPLES) {
    throw new Error(`${sound.length} samples at 16 kHz are too short; a frame needs ${MIN_SAMPLES}`);
  }
  const samples = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    const values = sound.getChannelData(channel);
    values.forEach((value, index) => (samples[index] += value / sound.numberOfChannels));
  }
  return samples;
}

// Starts to record; a function that stops and gives what was recorded.
export async function record() {
  const stream = await openMicrophone();
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  recorder.ondataavailable = ({ data }) => pieces.push(data);
  recorder.start();
  return () =>
    new Promise((resolve) => {
      recorder.onstop = () => {
        stream.getTracks().forEach((track) => track.stop());
        resolve(new Blob(pieces, { type: recorder.mimeType }));
      };
      recorder.stop();
    });
}

async function openMicrophone() {
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: UNTOUCHED });
  } catch (error) {
    const reasons = {
      NotAllowedError: 'the microphone is not allowed; allow it beside the address of this page',
      NotFoundError: 'there is no microphone; plug one in, or give a recording',
    };
    throw new Error(reasons[error.name] ?? `the microphone does not start: ${error.message}`);
  }
}

// The largest and smallest sample behind each column of the canvas.
export function drawWaveform(canvas, samples) {
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  const height = Math.round(canvas.clientHeight * devicePixelRatio);
  Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  context.fillStyle = getComputedStyle(canvas).color;
  const loudest = samples.reduce((best, value) => Math.max(best, Math.abs(value)), 1e-3);
  for (let column = 0; column < width; column++) {
    const [start, end] = [column, column + 1].map((edge) => Math.floor((edge * samples.length) / width));
    let [low, high] = [0, 0];
    for (let index = start; index < end; index++) {
      low = Math.min(low, samples[index]);
      high = Math.max(high, samples[index]);
    }
    const top = (1 - (0.9 * high) / loudest) * (height / 2);
    context.fillRect(column, top, 1, Math.max((0.45 * height * (high - low)) / loudest, devicePixelRatio));
  }
}
