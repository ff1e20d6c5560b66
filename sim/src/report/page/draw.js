// Draws what is in view, and only that. Many lines of one kind are one path: that is what keeps a
// hundred thousand events moving.

const COLOURS = ['page', 'panel', 'ink', 'soft', 'faint', 'line', 'lane', 'lane-other', 'accent', 'alarm',
  'message', 'lost-message', 'wire', 'good', 'failed', 'wrong', 'lost', 'late', 'dropped', 'refused', 'open',
  'connecting', 'connected', 'backoff', 'shutdown', 'trouble', 'off', 'well'];
const colour = {};
const hatch = {};
const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif';
const SMALL = FONT.replace('11px', '9.5px');
const DIM = { filter: 0.11, selection: 0.3 };

function readColours(context) {
  const style = getComputedStyle(document.documentElement);
  for (const name of COLOURS) colour[name] = style.getPropertyValue(`--${name}`).trim();
  for (const [name, of] of [['link', 'trouble'], ['off', 'off']]) {
    const tile = document.createElement('canvas');
    tile.width = tile.height = 7;
    const pen = tile.getContext('2d');
    pen.strokeStyle = colour[of];
    pen.lineWidth = 1;
    pen.beginPath();
    for (const shift of [-7, 0, 7]) { pen.moveTo(shift - 1, 8); pen.lineTo(shift + 8, -1); }
    pen.stroke();
    hatch[name] = context.createPattern(tile, 'repeat');
  }
}

let pen;
// What the last drawing had: items in view by kind, and how many of those had pixels of their own.
const drawn = { items: 0, painted: 0, bright: 0, by: {} };
// null, or the calls that stand out; and how faint the rest is.
let bright = null;
let faintness = 1;

function drawAll(context) {
  pen = context;
  bright = focus();
  faintness = shown.calls ? DIM.filter : DIM.selection;
  labels = [];
  Object.assign(drawn, { items: 0, painted: 0, bright: 0, by: {} });
  pen.clearRect(0, 0, view.width, view.height);
  pen.font = FONT;
  pen.textBaseline = 'middle';
  drawLanes();
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER - 1, 0, view.width - GUTTER + 1, view.height);
  pen.clip();
  drawGrid();
  drawSpells();
  drawWires();
  drawMessages();
  drawStates();
  drawBars();
  drawSpellLabels();
  drawVerticals();
  drawPoints();
  drawChosen();
  pen.restore();
  return drawn;
}

const isBright = (item) => bright === null || (item.call !== null && bright.has(item.call));

function inView(name) {
  const items = [];
  everything[name].each(view.from, view.to, (item) => { if (isShown(item)) items.push(item); });
  drawn.by[name] = items.length;
  drawn.items += items.length;
  return items;
}

// The faint ones first, so that they never cover the others.
function eachLevel(items, draw) {
  const levels = [[], []];
  for (const item of items) levels[isBright(item) ? 1 : 0].push(item);
  drawn.bright += levels[1].length;
  levels.forEach((level, at) => {
    pen.globalAlpha = at ? 1 : faintness;
    if (level.length) draw(level, pen.globalAlpha);
  });
  pen.globalAlpha = 1;
}

function drawLanes() {
  view.lanes.forEach((lane, at) => {
    pen.fillStyle = at % 2 ? colour['lane-other'] : colour.lane;
    pen.fillRect(0, lane.top, view.width, lane.bottom - lane.top);
    pen.fillStyle = colour.line;
    pen.fillRect(0, lane.top, view.width, 1);
    pen.fillStyle = colour.ink;
    pen.font = `600 ${FONT}`;
    pen.textAlign = 'left';
    pen.fillText(`node-${lane.node}`, 12, lane.wire);
    pen.font = SMALL;
    pen.fillStyle = colour.faint;
    pen.textAlign = 'right';
    if (lane.wire - lane.stripsEnd > 34) pen.fillText('made', GUTTER - 8, (lane.wire + lane.stripsEnd) / 2);
    if (lane.bottom - lane.wire > 34) pen.fillText('served', GUTTER - 8, (lane.wire + lane.bottom) / 2);
    if (lane.strip >= 8) {
      lane.stripOf.forEach((y, remote) => pen.fillText(`to node-${remote}`, GUTTER - 8, y + lane.strip / 2));
    }
    pen.font = FONT;
  });
  pen.fillStyle = colour.faint;
  pen.textAlign = 'left';
  pen.fillText('run', 12, runWire());
}

const STEPS = [1, 2, 5];

// Lines at round times, with as many decimals as the distance between them needs.
function drawGrid() {
  const least = (view.to - view.from) * 90 / plotWidth();
  const power = 10 ** Math.floor(Math.log10(least));
  const step = STEPS.map((factor) => factor * power).find((size) => size >= least) ?? 10 * power;
  const decimals = Math.min(Math.max(0, -Math.floor(Math.log10(step / 1000) + 1e-9)), 6);
  pen.textAlign = 'center';
  pen.font = FONT;
  for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) {
    const x = Math.round(xOf(time));
    pen.fillStyle = colour.line;
    pen.globalAlpha = 0.55;
    pen.fillRect(x, AXIS - 4, 1, view.height);
    pen.globalAlpha = 1;
    pen.fillStyle = colour.soft;
    if (x > GUTTER + 14 && x < view.width - 24) pen.fillText(`${(time / 1000).toFixed(decimals)} s`, x, AXIS / 2);
  }
  pen.fillStyle = colour.line;
  pen.fillRect(0, AXIS, view.width, 1);
}

const clampX = (x) => Math.min(Math.max(x, GUTTER - 2), view.width + 2);

// A box from one time to another, wide enough to be seen.
function span(item, least = 1) {
  const x = clampX(xOf(item.from));
  return { x, width: Math.max(clampX(xOf(item.to)) - x, least) };
}

let spellsInView = [];

function drawSpells() {
  spellsInView = inView('spells');
  for (const spell of spellsInView) {
    const { x, width } = span(spell, 2);
    drawn.painted++;
    for (const node of spell.nodes) {
      const lane = view.laneOf[node];
      if (!lane) continue;
      const height = lane.bottom - lane.top - 1;
      pen.globalAlpha = spell.off ? 0.16 : 0.05;
      pen.fillStyle = spell.off ? colour.off : colour.trouble;
      pen.fillRect(x, lane.top + 1, width, height);
      if (spell.off) {
        pen.globalAlpha = 0.28;
        pen.fillStyle = hatch.off;
        pen.fillRect(x, lane.top + 1, width, height);
      }
      pen.globalAlpha = 1;
    }
  }
}

function drawStates() {
  const last = new Map();
  for (const stay of inView('states')) {
    const lane = view.laneOf[stay.node];
    const { x, width } = span(stay);
    const y = lane.stripOf[stay.remote];
    if (y === undefined || isCovered(last, `${stay.node} ${stay.remote}`, x + width, stay.state)) continue;
    pen.fillStyle = colour[stay.state];
    pen.fillRect(x, y + 1, width, Math.max(lane.strip - 2, 1));
    drawn.painted++;
  }
}

// Whether what ends at `end` would only paint the pixel that the one before it in its row painted.
function isCovered(last, row, end, look) {
  const before = last.get(row);
  const pixel = Math.round(end * 2);
  if (before && before.pixel === pixel && before.look === look) return true;
  last.set(row, { pixel, look });
  return false;
}

// Over the strips: which link, and what is wrong with it.
function drawSpellLabels() {
  for (const spell of spellsInView) {
    const { x, width } = span(spell, 2);
    for (const node of spell.nodes) {
      const lane = view.laneOf[node];
      if (!lane) continue;
      if (spell.off) {
        label(spell.label, x + 8, (lane.bottom + lane.wire) / 2, width - 12, colour.ink, colour.panel);
        continue;
      }
      const remote = spell.nodes.find((other) => other !== node);
      const y = lane.stripOf[remote];
      if (y === undefined) continue;
      pen.globalAlpha = spell.kind === 'slow' ? 0.45 : 0.9;
      pen.fillStyle = hatch.link;
      pen.fillRect(x, y, width, lane.strip);
      pen.globalAlpha = 1;
      pen.strokeStyle = colour.trouble;
      pen.lineWidth = 1;
      pen.strokeRect(x + 0.5, y + 0.5, Math.max(width - 1, 0.5), lane.strip - 1);
      if (lane.strip >= 8) label(spell.label, x + 4, y + lane.strip / 2, width - 8, colour.trouble, colour.panel);
    }
  }
}

// Where labels stand already; the next ones keep away.
let labels = [];

// Takes a place for a label, unless it is taken.
function isFree(from, width, y) {
  const to = from + width;
  if (labels.some((other) => Math.abs(other.y - y) < 11 && from < other.to && other.from < to)) return false;
  labels.push({ y, from, to });
  return true;
}

// Text on a plate, if there is room for it.
function label(text, x, y, room, ink, plate) {
  if (room < 24) return;
  pen.font = SMALL;
  pen.textAlign = 'left';
  const from = Math.max(x, GUTTER + 4);
  const width = pen.measureText(text).width;
  if (width + 6 > room - (from - x) || !isFree(from - 1, width + 7, y)) return;
  pen.fillStyle = plate;
  pen.globalAlpha = 0.88;
  pen.fillRect(from - 1, y - 5.5, width + 6, 11);
  pen.globalAlpha = 1;
  pen.fillStyle = ink;
  pen.fillText(text, from + 2, y + 0.5);
  pen.font = FONT;
}

function drawWires() {
  pen.fillStyle = colour.wire;
  pen.globalAlpha = 0.7;
  for (const lane of view.lanes) pen.fillRect(GUTTER, Math.round(lane.wire), view.width, 1);
  pen.globalAlpha = 0.25;
  pen.fillRect(GUTTER, Math.round(runWire()), view.width, 1);
  pen.globalAlpha = 1;
}

function drawBars() {
  eachLevel(inView('bars'), (bars, alpha) => {
    const last = new Map();
    for (const bar of bars) {
      const { y, height } = barBox(bar);
      const { x, width } = span(bar, bar.tone === 'good' ? 1 : 1.6);
      if (isCovered(last, `${bar.node} ${y}`, x + width, bar.tone)) continue;
      drawBar(bar, x, y, width, height, alpha);
      drawn.painted++;
    }
  });
}

function drawBar(bar, x, y, width, height, alpha) {
  pen.fillStyle = colour[bar.tone];
  // A stream is a frame that its messages stand in, a request is solid.
  const framed = bar.stream && width > 5 && height > 5;
  pen.globalAlpha = alpha * (framed ? 0.3 : 0.85);
  pen.fillRect(x, y, width, height);
  if (framed) {
    pen.globalAlpha = alpha;
    pen.strokeStyle = colour[bar.tone];
    pen.lineWidth = 1;
    pen.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  }
  pen.globalAlpha = alpha;
  if (height < 9 || width < 30 || alpha < 1) return;
  const text = bar.stream ? `stream ${bar.call}` : `${bar.call}`;
  pen.font = SMALL;
  pen.textAlign = 'left';
  const from = Math.max(x, GUTTER) + 4;
  if (pen.measureText(text).width + 8 < x + width - from) {
    pen.fillStyle = framed ? colour.ink : colour.panel;
    pen.fillText(text, from, y + height / 2 + 0.5);
  }
  pen.font = FONT;
}

function drawMessages() {
  const inSight = inView('messages');
  const roomy = inSight.length < 700;
    // The more there are, the fainter each: the calls are to be seen through them.
  const dense = Math.min(Math.max(plotWidth() * 0.35 / Math.max(inSight.length, 1), 0.1), 0.8);
  eachLevel(inSight, (messages, alpha) => {
    const kinds = [
      ['message', messages.filter((message) => !message.lost && !message.control)],
      ['faint', messages.filter((message) => !message.lost && message.control)],
      ['lost-message', messages.filter((message) => message.lost)],
    ];
    for (const [name, some] of kinds) {
      const strong = name === 'lost-message' || (bright !== null && alpha === 1);
      pen.globalAlpha = alpha * (strong ? 1 : dense);
      pen.strokeStyle = pen.fillStyle = colour[name];
      pen.lineWidth = strong ? 1.4 : 1;
      strokeMessages(some);
      if (roomy) some.forEach(drawHead);
      pen.globalAlpha = alpha;
      if (inSight.length < 60 && alpha === 1) some.forEach(labelMessage);
    }
  });
}

// Chunks, because the time that one path takes grows faster than its length.
const CHUNK = 400;

function strokeMessages(messages) {
  const last = new Map();
  let chunk = 0;
  pen.beginPath();
  for (const message of messages) {
    const { x, y, endX, endY } = messageEnds(message);
    const look = Math.round(x * 2);
    if (isCovered(last, message.node * 256 + (message.to_node ?? 255), endX, look)) continue;
    drawn.painted++;
    pen.moveTo(x, y);
    pen.lineTo(endX, endY);
    if (message.lost) cross(endX, endY);
    if (++chunk % CHUNK === 0) { pen.stroke(); pen.beginPath(); }
  }
  pen.stroke();
}

function cross(x, y) {
  pen.moveTo(x - 3, y - 3);
  pen.lineTo(x + 3, y + 3);
  pen.moveTo(x + 3, y - 3);
  pen.lineTo(x - 3, y + 3);
}

function drawHead(message) {
  if (message.lost) return;
  const { x, y, endX, endY } = messageEnds(message);
  const angle = Math.atan2(endY - y, endX - x);
  pen.beginPath();
  pen.moveTo(endX, endY);
  pen.lineTo(endX - 7 * Math.cos(angle - 0.35), endY - 7 * Math.sin(angle - 0.35));
  pen.lineTo(endX - 7 * Math.cos(angle + 0.35), endY - 7 * Math.sin(angle + 0.35));
  pen.fill();
}

// Near its beginning, where arrows to several nodes have not crossed yet.
function labelMessage(message) {
  const { x, y, endX, endY } = messageEnds(message);
  const part = message.lost ? 1 : Math.min(26 / Math.max(Math.abs(endY - y), 1), 0.5);
  const text = events[message.place].message.op;
  label(text, x + (endX - x) * part + 4, y + (endY - y) * part, 200, colour.message, colour.panel);
}

const MARKS = {
  fault: ['trouble', 'triangle'], started: ['well', 'triangle'], socket_opened: ['soft', 'ring'],
  socket_closed: ['soft', 'cross'], fault_point: ['lost', 'diamond'], stream_opened: ['ink', 'ring'],
  sent: ['soft', 'tick'], received: ['soft', 'dot'], input_ended: ['ink', 'end'],
  lock_lost: ['wrong', 'diamond'], store_reached: ['ink', 'tick'],
};

function drawPoints() {
  const inSight = inView('points');
  const faults = inSight.filter((point) => point.kind === 'fault');
  // Trouble is never faint: it may be why.
  drawMarks(faults);
  eachLevel(inSight.filter((point) => point.kind !== 'fault'), drawMarks);
  faults.forEach(({ place, from }, at) => {
    const next = at + 1 < faults.length ? xOf(faults[at + 1].from) : view.width;
    const x = xOf(from) + 7;
    label(lines[place].replace('fault: ', ''), x, runWire(), next - x - 4, colour.trouble, colour.panel);
  });
}

function drawMarks(points) {
  const last = new Map();
  for (const point of points) {
    const x = xOf(point.from);
    const y = pointY(point);
    // What happens in a stream shows once there is room to tell it apart.
    if (point.bar && xOf(point.bar.to) - xOf(point.bar.from) < 7 * point.bar.marks) continue;
    if (isCovered(last, `${y} ${point.kind}`, x, 0)) continue;
    const [name, mark] = MARKS[point.kind] ?? ['soft', 'dot'];
    pen.fillStyle = pen.strokeStyle = colour[name];
    pen.lineWidth = 1.2;
    drawn.painted++;
    drawMark(mark, x, y, point.bar ? Math.min(barBox(point.bar).height / 2, 5) : 4);
  }
}

function drawMark(mark, x, y, size) {
  if (mark === 'tick') return pen.fillRect(x - 0.5, y - size, 1, 2 * size);
  if (mark === 'end') return pen.fillRect(x - 1.5, y - size, 3, 2 * size);
  pen.beginPath();
  if (mark === 'dot' || mark === 'ring') pen.arc(x, y, Math.max(size * 0.55, 1.2), 0, 2 * Math.PI);
  if (mark === 'triangle') { pen.moveTo(x - 4, y - 5); pen.lineTo(x + 5, y); pen.lineTo(x - 4, y + 5); }
  if (mark === 'diamond') { pen.moveTo(x, y - 5); pen.lineTo(x + 4, y); pen.lineTo(x, y + 5); pen.lineTo(x - 4, y); }
  if (mark === 'cross') { cross(x, y); return pen.stroke(); }
  if (mark === 'ring') {
    const ink = pen.fillStyle;
    pen.fillStyle = colour.panel;
    pen.fill();
    pen.fillStyle = ink;
    return pen.stroke();
  }
  return pen.fill();
}

const VERTICALS = { violated: ['alarm', 2.5, []], healed: ['well', 1.5, [6, 4]], quiet: ['accent', 1.5, [2, 3]] };

function drawVerticals() {
  // Where plates would overlap, that of a violation stays.
  const inSight = inView('lines').sort((one, other) => (other.kind === 'violated') - (one.kind === 'violated'));
  for (const line of inSight) {
    const [name, width, dashes] = VERTICALS[line.kind];
    const x = xOf(line.from);
    drawn.painted++;
    pen.strokeStyle = colour[name];
    pen.lineWidth = width;
    pen.setLineDash(dashes);
    pen.beginPath();
    pen.moveTo(x, AXIS);
    pen.lineTo(x, view.height);
    pen.stroke();
    pen.setLineDash([]);
    const text = line.kind === 'violated' ? `violated: ${events[line.place].invariant}` : line.kind;
    plate(text, x, colour[name]);
  }
}

function plate(text, x, ink) {
  pen.font = `600 ${SMALL}`;
  const width = pen.measureText(text).width + 10;
  const from = x + width > view.width ? x - width : x;
  if (!isFree(from, width, plateY())) return;
  pen.fillStyle = ink;
  pen.fillRect(from, plateY() - 7, width, 14);
  pen.fillStyle = colour.panel;
  pen.textAlign = 'left';
  pen.fillText(text, from + 5, plateY() + 0.5);
  pen.font = FONT;
}

// A ring around the selected event, the whole of what it belongs to, and the line of its time.
function drawChosen() {
  const at = chosen.place === null ? null : anchorOf(chosen.place);
  if (!at) return;
  pen.strokeStyle = colour.accent;
  drawChosenItem(itemOf[chosen.place]);
  pen.globalAlpha = 0.5;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(xOf(times[chosen.place]), AXIS);
  pen.lineTo(xOf(times[chosen.place]), view.height);
  pen.stroke();
  pen.globalAlpha = 1;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(at.x, at.y, 8, 0, 2 * Math.PI);
  pen.stroke();
}

function drawChosenItem(item) {
  pen.lineWidth = 2.5;
  pen.beginPath();
  if (item.type === 'message') {
    const { x, y, endX, endY } = messageEnds(item);
    pen.moveTo(x, y);
    pen.lineTo(endX, endY);
  } else if (item.type === 'bar') {
    const { x, width } = span(item, 2);
    const { y, height } = barBox(item);
    pen.rect(x - 1, y - 1, width + 2, height + 2);
  }
  pen.stroke();
}
