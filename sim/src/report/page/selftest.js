// `#selftest`: the page exercises its own controls with synthetic input, and reports PASS or FAIL.
// `#measure`: the page draws repeatedly, and reports the times.
// `#view=from,to&call=7&event=12`, `#violation`: the page opens there.

const failures = [];
const notes = [];

function check(is, text) {
  if (!is) failures.push(text);
}

function report() {
  const verdict = failures.length ? `FAIL: ${failures.join('; ')}` : 'PASS';
  document.title = verdict;
  byId('selftest').hidden = false;
  byId('selftest').textContent = [verdict, ...notes].join('\n');
}

// Waits for the next drawing. A headless browser with virtual time may never request a frame.
const frame = () => new Promise((done) => {
  requestAnimationFrame(() => requestAnimationFrame(done));
  setTimeout(() => { page.drawNow(); done(); }, 60);
});

function pointer(type, canvas, { x, y }) {
  const box = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new PointerEvent(type, {
    bubbles: true, clientX: box.left + x, clientY: box.top + y, button: 0, pointerId: 1,
  }));
}

function type(input, text) {
  input.value = text;
  input.dispatchEvent(new Event('input', { bubbles: true }));
}

const press = (target, key) => target.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
const tick = (name) => document.querySelector(`input[data-name="${name}"]`).click();
const listed = () => Math.round(parseFloat(byId('rows').style.height) / ROW);

// Returns a message of a call that arrived, from the middle of the run.
function pickMessage() {
  const good = messages.filter((message) => message.call !== null && !message.lost);
  return good[Math.floor(good.length / 2)];
}

async function checkWhole() {
  press(page.canvas, 'f');
  await frame();
  const all = [messages, bars, states, faultSpans, points, verticals].reduce((sum, items) => sum + items.length, 0);
  const count = (...kinds) => events.filter(({ event }) => kinds.includes(event)).length;
  check(messages.length === count('message_sent'), 'not every message that was sent is drawn');
  check(bars.length === count('call_made', 'handler_started', 'lock_requested', 'lock_granted'),
    'not every call is drawn at both ends');
  check(states.length === count('state'), 'not every state of a connection is drawn');
  check(drawn.items === all, `whole run: ${drawn.items} of ${all} items are in view`);
  check(drawn.painted > 0 && drawn.painted <= all * 2, `whole run: ${drawn.painted} items are painted`);
  check(itemOf.filter(Boolean).length === events.length, 'an event has no item in the diagram');
  check(listed() === events.length, `list: ${listed()} of ${events.length} events`);
  check(byId('rows').children.length < 200, `list: ${byId('rows').children.length} rows in the document`);
  notes.push(`${events.length} events, ${all} items, ${drawn.painted} painted for the whole run`);
}

async function checkWheel(message) {
  const before = view.to - view.from;
  for (let turn = 0; turn < 60 && view.to - view.from > 40; turn++) {
    const box = page.canvas.getBoundingClientRect();
    page.canvas.dispatchEvent(new WheelEvent('wheel', {
      bubbles: true, cancelable: true, deltaY: -120, clientX: box.left + xOf(message.from), clientY: box.top + 80,
    }));
  }
  await frame();
  check(view.to - view.from < before / 10, 'the wheel does not zoom');
  check(view.from <= message.from && message.from <= view.to, 'the wheel zooms to another time');
}

async function checkClick(message) {
  const at = whereIs(message.index);
  pointer('pointermove', page.canvas, at);
  const tip = byId('tip');
  check(!tip.hidden && tip.textContent.length > 10, 'no tooltip under the cursor');
  const under = hitsAt(at.x, at.y);
  check(under.includes(message), 'a message is not found where it is drawn');
  // Other items may lie above it: repeated clicks go through them.
  for (let turn = 0; turn < under.length && selection.index !== message.index; turn++) {
    pointer('pointerdown', page.canvas, at);
    pointer('pointerup', page.canvas, at);
  }
  await frame();
  check(selection.index === message.index, `clicked on event ${message.index}, selected ${selection.index}`);
  const details = byId('details').textContent;
  check(details.includes(lines[message.index]), 'details do not show the selected event');
  check(details.includes(`Call ${message.call}:`), 'details do not list the events of the call');
  const row = byId(`event-${message.index}`);
  check(row && row.getAttribute('aria-selected') === 'true', 'the list does not follow the selection');
  check(drawn.bright < drawn.items, 'selecting highlights nothing');
}

async function checkFilter(message) {
  press(page.canvas, 'Escape');
  press(page.canvas, 'f');
  await frame();
  const before = drawn.bright;
  type(byId('call-filter'), String(message.call));
  await frame();
  const own = [...messages, ...bars, ...points].filter((item) => item.call === message.call).length;
  check(drawn.bright === own, `filter: ${drawn.bright} of ${before} highlighted, ${own} expected`);
  check(own > 1 && own < before, `filter: call ${message.call} has ${own} items of ${before}`);
  check(listed() === indicesOfCall.get(message.call).length, `filter: ${listed()} events listed`);
  type(byId('call-filter'), '');
  await frame();
  check(drawn.bright === before && listed() === events.length, 'clearing the filter does not show all again');
}

async function checkBoxes() {
  const before = drawn.items;
  tick('messages');
  await frame();
  check(drawn.items === before - messages.length, 'messages are drawn although they are hidden');
  tick('messages');
  if (diagram.nodes > 1) {
    tick('node-0');
    await frame();
    check(view.lanes.length === diagram.nodes - 1 && drawn.items < before, 'a hidden node is drawn');
    check(!byId('rows').textContent.includes('s node-0'), 'a hidden node is in the list');
    tick('node-0');
  }
  await frame();
  check(drawn.items === before, 'showing everything again draws other items');
}

async function checkKeys() {
  press(page.canvas, '+');
  await frame();
  check(view.to - view.from < (WHOLE.to - WHOLE.from) * 0.6, 'plus does not zoom in');
  const from = view.from;
  press(page.canvas, 'ArrowRight');
  check(view.from > from, 'an arrow key does not move');
  pointer('pointerdown', page.canvas, { x: 400, y: 100 });
  pointer('pointermove', page.canvas, { x: 500, y: 100 });
  pointer('pointerup', page.canvas, { x: 500, y: 100 });
  check(view.from < from + (view.to - view.from) * 0.15, 'dragging to the right does not move back');
  check(selection.index === null, 'dragging selects');
  press(byId('list'), 'Home');
  press(byId('list'), 'ArrowDown');
  check(selection.index === 1, `keys in the list select ${selection.index}`);
  byId('zoom-fit').click();
  check(view.to === WHOLE.to, 'fit does not show the whole run');
}

async function checkViolation() {
  const [index] = diagram.violations;
  if (index === undefined) return;
  byId('violations').querySelector('button').click();
  await frame();
  check(selection.index === index, 'the banner does not select its violation');
  check(view.from < times[index] && times[index] < view.to, 'the banner does not show its violation');
  const ratio = page.canvas.width / view.width;
  const x = Math.round(xOf(times[index]) * ratio);
  const [red, green] = page.context.getImageData(x, Math.round((view.height - 6) * ratio), 1, 1).data;
  check(red > 140 && red > green + 60, `no red line at the violation: ${red}, ${green}`);
}

async function selftest() {
  const message = pickMessage();
  check(message, 'there is no message to click on');
  await checkWhole();
  await checkWheel(message);
  await checkClick(message);
  await checkFilter(message);
  await checkBoxes();
  await checkKeys();
  await checkViolation();
}

function measure() {
  const time = (name, prepare) => {
    const took = [];
    for (let turn = 0; turn < 12; turn++) {
      prepare();
      const start = performance.now();
      page.drawNow();
      // Reading a pixel waits until the drawing is complete.
      page.context.getImageData(0, 0, 1, 1);
      took.push(performance.now() - start);
    }
    took.sort((one, other) => one - other);
    notes.push(`${name}: ${took[6].toFixed(1)} ms per drawing (${drawn.items} items, ${drawn.painted} painted)`);
  };
  const middle = (WHOLE.from + WHOLE.to) / 2;
  notes.push(`${events.length} events, ready ${performance.now().toFixed(0)} ms after the page began to load`);
  time('whole run', () => setRange(WHOLE.from, WHOLE.to));
  time('a tenth', () => setRange(middle, middle + WHOLE.to / 10));
  time('a hundredth', () => setRange(middle, middle + WHOLE.to / 100));
  setRange(WHOLE.from, WHOLE.to);
  const start = performance.now();
  for (let turn = 0; turn < 50; turn++) hitsAt(GUTTER + 10 + turn * 9, view.height / 2);
  notes.push(`hit test, whole run: ${((performance.now() - start) / 50).toFixed(2)} ms`);
  const call = pickMessage()?.call ?? 0;
  const filtering = performance.now();
  page.filterCalls(String(call));
  page.filterCalls('');
  notes.push(`filter by a call and clear: ${(performance.now() - filtering).toFixed(1)} ms`);
}

function look(hash) {
  const wanted = new URLSearchParams(hash);
  const number = (name) => Number(wanted.get(name));
  if (wanted.has('view')) page.show(...wanted.get('view').split(',').map(Number));
  if (wanted.has('call')) page.filterCalls(wanted.get('call'));
  if (wanted.has('event') && events[number('event')]) page.select(number('event'));
  if (wanted.has('violation')) page.nextViolation();
}

const hash = location.hash.slice(1);
if (hash === 'selftest') {
  window.addEventListener('error', (error) => failures.push(`error: ${error.message}`));
  window.addEventListener('unhandledrejection', ({ reason }) => failures.push(`error: ${reason}`));
  selftest().catch((error) => failures.push(`error: ${error.stack}`)).finally(report);
} else if (hash === 'measure') {
  measure();
  report();
} else if (hash) {
  look(hash);
}
