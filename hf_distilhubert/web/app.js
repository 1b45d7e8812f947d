// The page: it passes sound on to the recogniser and shows what comes back.
import { drawWaveform, readSamples, record } from '/sound.js';

const elements = [...document.querySelectorAll('[id]')];
const part = Object.fromEntries(elements.map((element) => [element.id, element]));
const worker = new Worker('/recogniser.js', { type: 'module' });
let samples = new Float32Array(0);
let stopRecording = null;
let settleText = null; // of the transcription under way
let failure = null; // why the recogniser cannot listen

worker.onmessage = ({ data }) => {
  if ('loaded' in data) show(`Loading the model… ${Math.round(100 * data.loaded)} %`, data.loaded);
  if ('ready' in data && !settleText) show('Ready.');
  if ('heard' in data) show('Listening…', data.heard);
  if ('text' in data) settleText.resolve(data);
  if ('error' in data) fail(data.error);
};
worker.onerror = (event) => fail(event.message ?? 'the recogniser does not start');

function fail(message) {
  if (settleText) settleText.reject(new Error(message));
  else complain((failure = new Error(message)));
}

// A line of where things stand; `share` is 0 to 1, null where it is unknown and undefined where all is done.
function show(message, share) {
  part.status.textContent = message;
  part.progress.hidden = share === undefined;
  if (share === null) part.progress.removeAttribute('value');
  else if (share !== undefined) part.progress.value = share;
}

function complain(error) {
  show('');
  part.error.textContent = `Error: ${error.message.split('\n')[0]}`;
}

async function start() {
  const settings = await (await fetch('/settings.json')).json();
  part.model.textContent = `${settings.name}, ${settings.precision}, ${(settings.bytes / 1e6).toFixed(1)} MB`;
  document.title = `${settings.name}: speech to text`;
  show('Loading the library…', null);
  worker.postMessage({ settings });
}

function clear() {
  part.error.textContent = part.text.textContent = part.time.textContent = '';
}

async function transcribe(blob) {
  clear();
  setBusy(true);
  try {
    if (failure) throw failure;
    samples = await readSamples(blob);
    present(blob);
    const { text, seconds } = await hear();
    const sound = samples.length / 16_000;
    part.text.textContent = text || 'Nothing was understood.';
    part.text.toggleAttribute('data-empty', !text);
    const factor = `real-time factor ${(seconds / sound).toFixed(3)}`;
    part.time.textContent = `${sound.toFixed(1)} s of sound in ${seconds.toFixed(2)} s (${factor})`;
    show('Ready.');
  } catch (error) {
    complain(error);
  }
  setBusy(false);
}

function hear() {
  show('Listening…', null);
  return new Promise((resolve, reject) => {
    settleText = { resolve, reject };
    worker.postMessage({ samples });
  }).finally(() => (settleText = null));
}

function present(blob) {
  URL.revokeObjectURL(part.player.src);
  part.player.src = URL.createObjectURL(blob);
  part.player.hidden = false;
  part.waveform.ariaLabel = `Waveform of ${(samples.length / 16_000).toFixed(1)} seconds`;
  redraw();
}

function redraw() {
  drawWaveform(part.waveform, samples);
}

function setBusy(busy) {
  part.record.disabled = part.file.disabled = busy;
}

function setRecording(recording) {
  part.record.textContent = recording ? 'Stop' : 'Record';
  part.record.ariaPressed = String(recording);
  part.file.disabled = recording;
  if (recording) show('Recording…');
}

async function toggleRecording() {
  if (stopRecording) {
    const stop = stopRecording;
    stopRecording = null;
    setRecording(false);
    await transcribe(await stop());
    part.record.focus();
  } else {
    clear();
    setBusy(true); // until the browser has asked for leave
    stopRecording = await record().finally(() => setBusy(false));
    setRecording(true);
  }
}

part.record.onclick = () => toggleRecording().catch(complain);
part.file.onclick = () => (part.file.value = ''); // the same file may be given again
part.file.onchange = () => part.file.files.length && transcribe(part.file.files[0]);
window.onresize = redraw;
matchMedia('(prefers-color-scheme: dark)').onchange = redraw;
redraw();
start().catch(complain);
