// Draws only what is in view. Many lines of one kind are one path, which keeps the page responsive
// with a hundred thousand events.

const COLOURS = ['page', 'panel', 'ink', 'soft', 'faint', 'line', 'lane', 'lane-other', 'accent', 'alarm',
  'message', 'lost-message', 'wire', 'success', 'failed', 'wrong', 'lost', 'expired', 'cancelled', 'refused', 'open',
  'connecting', 'connected', 'backoff', 'shutdown', 'fault', 'off', 'ok'];
const colour = {};
const hatch = {};
const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif';
const SMALL = FONT.replace('11px', '9.5px');
const DIM = { filter: 0.11, selection: 0.3 };

function readColours(context) {
  const style = getComputedStyle(document.documentElement);
  for (const name of COLOURS) colour[name] = style.getPropertyValue(`--${name}`).trim();
  for (const [name, of] of [['link', 'fault'], ['off', 'off']]) {
    const tile = document.createElement('canvas');
    tile.width = tile.height = 7;
    const ctx = tile.getContext('2d');
    ctx.strokeStyle = colour[of];
    ctx.lineWidth = 1;
    ctx.beginPath();
    for (const shift of [-7, 0, 7]) { ctx.moveTo(shift - 1, 8); ctx.lineTo(shift + 8, -1); }
    ctx.stroke();
    hatch[name] = context.createPattern(tile, 'repeat');
  }
}

let ctx;
// Statistics of the last drawing: items in view by kind, and how many were painted.
const drawn = { items: 0, painted: 0, bright: 0, by: {} };
// null, or the highlighted calls; and the opacity of all others.
let bright = null;
let faintness = 1;

function drawAll(context) {
  ctx = context;
  bright = focus();
  faintness = shown.calls ? DIM.filter : DIM.selection;
  labels = [];
  Object.assign(drawn, { items: 0, painted: 0, bright: 0, by: {} });
  ctx.clearRect(0, 0, view.width, view.height);
  ctx.font = FONT;
  ctx.textBaseline = 'middle';
  drawLanes();
  ctx.save();
  ctx.beginPath();
  ctx.rect(GUTTER - 1, 0, view.width - GUTTER + 1, view.height);
  ctx.clip();
  drawGrid();
  drawFaultSpans();
  drawWires();
  drawMessages();
  drawStates();
  drawBars();
  drawFaultLabels();
  drawVerticals();
  drawPoints();
  drawSelected();
  ctx.restore();
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

// Faint items first, so that they never cover the highlighted ones.
function eachLevel(items, draw) {
  const levels = [[], []];
  for (const item of items) levels[isBright(item) ? 1 : 0].push(item);
  drawn.bright += levels[1].length;
  levels.forEach((level, at) => {
    ctx.globalAlpha = at ? 1 : faintness;
    if (level.length) draw(level, ctx.globalAlpha);
  });
  ctx.globalAlpha = 1;
}

function drawLanes() {
  view.lanes.forEach((lane, at) => {
    ctx.fillStyle = at % 2 ? colour['lane-other'] : colour.lane;
    ctx.fillRect(0, lane.top, view.width, lane.bottom - lane.top);
    ctx.fillStyle = colour.line;
    ctx.fillRect(0, lane.top, view.width, 1);
    ctx.fillStyle = colour.ink;
    ctx.font = `600 ${FONT}`;
    ctx.textAlign = 'left';
    ctx.fillText(`node-${lane.node}`, 12, lane.wire);
    ctx.font = SMALL;
    ctx.fillStyle = colour.faint;
    ctx.textAlign = 'right';
    if (lane.wire - lane.stripsEnd > 34) ctx.fillText('made', GUTTER - 8, (lane.wire + lane.stripsEnd) / 2);
    if (lane.bottom - lane.wire > 34) ctx.fillText('served', GUTTER - 8, (lane.wire + lane.bottom) / 2);
    if (lane.strip >= 8) {
      lane.stripOf.forEach((y, remote) => ctx.fillText(`to node-${remote}`, GUTTER - 8, y + lane.strip / 2));
    }
    ctx.font = FONT;
  });
  ctx.fillStyle = colour.faint;
  ctx.textAlign = 'left';
  ctx.fillText('run', 12, runWire());
}

const STEPS = [1, 2, 5];

// Lines at round times, with as many decimals as their distance needs.
function drawGrid() {
  const least = (view.to - view.from) * 90 / plotWidth();
  const power = 10 ** Math.floor(Math.log10(least));
  const step = STEPS.map((factor) => factor * power).find((size) => size >= least) ?? 10 * power;
  const decimals = Math.min(Math.max(0, -Math.floor(Math.log10(step / 1000) + 1e-9)), 6);
  ctx.textAlign = 'center';
  ctx.font = FONT;
  for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) {
    const x = Math.round(xOf(time));
    ctx.fillStyle = colour.line;
    ctx.globalAlpha = 0.55;
    ctx.fillRect(x, AXIS - 4, 1, view.height);
    ctx.globalAlpha = 1;
    ctx.fillStyle = colour.soft;
    if (x > GUTTER + 14 && x < view.width - 24) ctx.fillText(`${(time / 1000).toFixed(decimals)} s`, x, AXIS / 2);
  }
  ctx.fillStyle = colour.line;
  ctx.fillRect(0, AXIS, view.width, 1);
}

const clampX = (x) => Math.min(Math.max(x, GUTTER - 2), view.width + 2);

// The horizontal extent of an item, at least `least` pixels wide.
function span(item, least = 1) {
  const x = clampX(xOf(item.from));
  return { x, width: Math.max(clampX(xOf(item.to)) - x, least) };
}

let faultSpansInView = [];

function drawFaultSpans() {
  faultSpansInView = inView('faultSpans');
  for (const faultSpan of faultSpansInView) {
    const { x, width } = span(faultSpan, 2);
    drawn.painted++;
    for (const node of faultSpan.nodes) {
      const lane = view.laneOf[node];
      if (!lane) continue;
      const height = lane.bottom - lane.top - 1;
      ctx.globalAlpha = faultSpan.off ? 0.16 : 0.05;
      ctx.fillStyle = faultSpan.off ? colour.off : colour.fault;
      ctx.fillRect(x, lane.top + 1, width, height);
      if (faultSpan.off) {
        ctx.globalAlpha = 0.28;
        ctx.fillStyle = hatch.off;
        ctx.fillRect(x, lane.top + 1, width, height);
      }
      ctx.globalAlpha = 1;
    }
  }
}

function drawStates() {
  const last = new Map();
  for (const item of inView('states')) {
    const lane = view.laneOf[item.node];
    const { x, width } = span(item);
    const y = lane.stripOf[item.remote];
    if (y === undefined || isCovered(last, `${item.node} ${item.remote}`, x + width, item.state)) continue;
    ctx.fillStyle = colour[item.state];
    ctx.fillRect(x, y + 1, width, Math.max(lane.strip - 2, 1));
    drawn.painted++;
  }
}

// Returns whether an item that ends at `end` would paint only the pixel of its predecessor in its row.
function isCovered(last, row, end, look) {
  const before = last.get(row);
  const pixel = Math.round(end * 2);
  if (before && before.pixel === pixel && before.look === look) return true;
  last.set(row, { pixel, look });
  return false;
}

// Labels over the strips: the link, and its fault.
function drawFaultLabels() {
  for (const faultSpan of faultSpansInView) {
    const { x, width } = span(faultSpan, 2);
    for (const node of faultSpan.nodes) {
      const lane = view.laneOf[node];
      if (!lane) continue;
      if (faultSpan.off) {
        label(faultSpan.label, x + 8, (lane.bottom + lane.wire) / 2, width - 12, colour.ink, colour.panel);
        continue;
      }
      const remote = faultSpan.nodes.find((other) => other !== node);
      const y = lane.stripOf[remote];
      if (y === undefined) continue;
      ctx.globalAlpha = faultSpan.kind === 'slow' ? 0.45 : 0.9;
      ctx.fillStyle = hatch.link;
      ctx.fillRect(x, y, width, lane.strip);
      ctx.globalAlpha = 1;
      ctx.strokeStyle = colour.fault;
      ctx.lineWidth = 1;
      ctx.strokeRect(x + 0.5, y + 0.5, Math.max(width - 1, 0.5), lane.strip - 1);
      if (lane.strip >= 8) label(faultSpan.label, x + 4, y + lane.strip / 2, width - 8, colour.fault, colour.panel);
    }
  }
}

// Positions of labels drawn so far; later labels avoid them.
let labels = [];

// Reserves a position for a label, unless it overlaps another label.
function isFree(from, width, y) {
  const to = from + width;
  if (labels.some((other) => Math.abs(other.y - y) < 11 && from < other.to && other.from < to)) return false;
  labels.push({ y, from, to });
  return true;
}

// Draws a label on a background, if there is room for it.
function label(text, x, y, room, ink, plate) {
  if (room < 24) return;
  ctx.font = SMALL;
  ctx.textAlign = 'left';
  const from = Math.max(x, GUTTER + 4);
  const width = ctx.measureText(text).width;
  if (width + 6 > room - (from - x) || !isFree(from - 1, width + 7, y)) return;
  ctx.fillStyle = plate;
  ctx.globalAlpha = 0.88;
  ctx.fillRect(from - 1, y - 5.5, width + 6, 11);
  ctx.globalAlpha = 1;
  ctx.fillStyle = ink;
  ctx.fillText(text, from + 2, y + 0.5);
  ctx.font = FONT;
}

function drawWires() {
  ctx.fillStyle = colour.wire;
  ctx.globalAlpha = 0.7;
  for (const lane of view.lanes) ctx.fillRect(GUTTER, Math.round(lane.wire), view.width, 1);
  ctx.globalAlpha = 0.25;
  ctx.fillRect(GUTTER, Math.round(runWire()), view.width, 1);
  ctx.globalAlpha = 1;
}

function drawBars() {
  eachLevel(inView('bars'), (bars, alpha) => {
    const last = new Map();
    for (const bar of bars) {
      const { y, height } = barBox(bar);
      const { x, width } = span(bar, bar.tone === 'success' ? 1 : 1.6);
      if (isCovered(last, `${bar.node} ${y}`, x + width, bar.tone)) continue;
      drawBar(bar, x, y, width, height, alpha);
      drawn.painted++;
    }
  });
}

function drawBar(bar, x, y, width, height, alpha) {
  ctx.fillStyle = colour[bar.tone];
  // A stream is a frame around its messages, a request is solid.
  const framed = bar.stream && width > 5 && height > 5;
  ctx.globalAlpha = alpha * (framed ? 0.3 : 0.85);
  ctx.fillRect(x, y, width, height);
  if (framed) {
    ctx.globalAlpha = alpha;
    ctx.strokeStyle = colour[bar.tone];
    ctx.lineWidth = 1;
    ctx.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  }
  ctx.globalAlpha = alpha;
  if (height < 9 || width < 30 || alpha < 1) return;
  const text = bar.stream ? `stream ${bar.call}` : `${bar.call}`;
  ctx.font = SMALL;
  ctx.textAlign = 'left';
  const from = Math.max(x, GUTTER) + 4;
  if (ctx.measureText(text).width + 8 < x + width - from) {
    ctx.fillStyle = framed ? colour.ink : colour.panel;
    ctx.fillText(text, from, y + height / 2 + 0.5);
  }
  ctx.font = FONT;
}

function drawMessages() {
  const visible = inView('messages');
  const roomy = visible.length < 700;
  // The more messages, the fainter each is, so that the calls stay visible.
  const dense = Math.min(Math.max(plotWidth() * 0.35 / Math.max(visible.length, 1), 0.1), 0.8);
  eachLevel(visible, (messages, alpha) => {
    const kinds = [
      ['message', messages.filter((message) => !message.lost && !message.control)],
      ['faint', messages.filter((message) => !message.lost && message.control)],
      ['lost-message', messages.filter((message) => message.lost)],
    ];
    for (const [name, some] of kinds) {
      const strong = name === 'lost-message' || (bright !== null && alpha === 1);
      ctx.globalAlpha = alpha * (strong ? 1 : dense);
      ctx.strokeStyle = ctx.fillStyle = colour[name];
      ctx.lineWidth = strong ? 1.4 : 1;
      strokeMessages(some);
      if (roomy) some.forEach(drawHead);
      ctx.globalAlpha = alpha;
      if (visible.length < 60 && alpha === 1) some.forEach(labelMessage);
    }
  });
}

// Chunks, because the time to draw one path grows faster than its length.
const CHUNK = 400;

function strokeMessages(messages) {
  const last = new Map();
  let chunk = 0;
  ctx.beginPath();
  for (const message of messages) {
    const { x, y, endX, endY } = messageEnds(message);
    const look = Math.round(x * 2);
    if (isCovered(last, message.node * 256 + (message.to_node ?? 255), endX, look)) continue;
    drawn.painted++;
    ctx.moveTo(x, y);
    ctx.lineTo(endX, endY);
    if (message.lost) cross(endX, endY);
    if (++chunk % CHUNK === 0) { ctx.stroke(); ctx.beginPath(); }
  }
  ctx.stroke();
}

function cross(x, y) {
  ctx.moveTo(x - 3, y - 3);
  ctx.lineTo(x + 3, y + 3);
  ctx.moveTo(x + 3, y - 3);
  ctx.lineTo(x - 3, y + 3);
}

function drawHead(message) {
  if (message.lost) return;
  const { x, y, endX, endY } = messageEnds(message);
  const angle = Math.atan2(endY - y, endX - x);
  ctx.beginPath();
  ctx.moveTo(endX, endY);
  ctx.lineTo(endX - 7 * Math.cos(angle - 0.35), endY - 7 * Math.sin(angle - 0.35));
  ctx.lineTo(endX - 7 * Math.cos(angle + 0.35), endY - 7 * Math.sin(angle + 0.35));
  ctx.fill();
}

// Labels a message near its start, where arrows to different nodes have not crossed yet.
function labelMessage(message) {
  const { x, y, endX, endY } = messageEnds(message);
  const part = message.lost ? 1 : Math.min(26 / Math.max(Math.abs(endY - y), 1), 0.5);
  const text = events[message.index].message.op;
  label(text, x + (endX - x) * part + 4, y + (endY - y) * part, 200, colour.message, colour.panel);
}

const MARKS = {
  fault: ['fault', 'triangle'], started: ['ok', 'triangle'], socket_opened: ['soft', 'ring'],
  socket_closed: ['soft', 'cross'], fault_point: ['lost', 'diamond'], stream_opened: ['ink', 'ring'],
  sent: ['soft', 'tick'], received: ['soft', 'dot'], input_ended: ['ink', 'end'],
  lock_lost: ['wrong', 'diamond'], store_reached: ['ink', 'tick'],
};

function drawPoints() {
  const visible = inView('points');
  const faults = visible.filter((point) => point.kind === 'fault');
  // Faults are never faint: they may be the cause.
  drawMarks(faults);
  eachLevel(visible.filter((point) => point.kind !== 'fault'), drawMarks);
  faults.forEach(({ index, from }, at) => {
    const next = at + 1 < faults.length ? xOf(faults[at + 1].from) : view.width;
    const x = xOf(from) + 7;
    label(lines[index].replace('fault: ', ''), x, runWire(), next - x - 4, colour.fault, colour.panel);
  });
}

function drawMarks(points) {
  const last = new Map();
  for (const point of points) {
    const x = xOf(point.from);
    const y = pointY(point);
    // Marks inside a stream are drawn once there is room to distinguish them.
    if (point.bar && xOf(point.bar.to) - xOf(point.bar.from) < 7 * point.bar.marks) continue;
    if (isCovered(last, `${y} ${point.kind}`, x, 0)) continue;
    const [name, mark] = MARKS[point.kind] ?? ['soft', 'dot'];
    ctx.fillStyle = ctx.strokeStyle = colour[name];
    ctx.lineWidth = 1.2;
    drawn.painted++;
    drawMark(mark, x, y, point.bar ? Math.min(barBox(point.bar).height / 2, 5) : 4);
  }
}

function drawMark(mark, x, y, size) {
  if (mark === 'tick') return ctx.fillRect(x - 0.5, y - size, 1, 2 * size);
  if (mark === 'end') return ctx.fillRect(x - 1.5, y - size, 3, 2 * size);
  ctx.beginPath();
  if (mark === 'dot' || mark === 'ring') ctx.arc(x, y, Math.max(size * 0.55, 1.2), 0, 2 * Math.PI);
  if (mark === 'triangle') { ctx.moveTo(x - 4, y - 5); ctx.lineTo(x + 5, y); ctx.lineTo(x - 4, y + 5); }
  if (mark === 'diamond') { ctx.moveTo(x, y - 5); ctx.lineTo(x + 4, y); ctx.lineTo(x, y + 5); ctx.lineTo(x - 4, y); }
  if (mark === 'cross') { cross(x, y); return ctx.stroke(); }
  if (mark === 'ring') {
    const ink = ctx.fillStyle;
    ctx.fillStyle = colour.panel;
    ctx.fill();
    ctx.fillStyle = ink;
    return ctx.stroke();
  }
  return ctx.fill();
}

const VERTICALS = { violated: ['alarm', 2.5, []], healed: ['ok', 1.5, [6, 4]], quiet: ['accent', 1.5, [2, 3]] };

function drawVerticals() {
  // Where plates would overlap, that of a violation is drawn.
  const visible = inView('lines').sort((one, other) => (other.kind === 'violated') - (one.kind === 'violated'));
  for (const line of visible) {
    const [name, width, dashes] = VERTICALS[line.kind];
    const x = xOf(line.from);
    drawn.painted++;
    ctx.strokeStyle = colour[name];
    ctx.lineWidth = width;
    ctx.setLineDash(dashes);
    ctx.beginPath();
    ctx.moveTo(x, AXIS);
    ctx.lineTo(x, view.height);
    ctx.stroke();
    ctx.setLineDash([]);
    const text = line.kind === 'violated' ? `violated: ${events[line.index].invariant}` : line.kind;
    plate(text, x, colour[name]);
  }
}

function plate(text, x, ink) {
  ctx.font = `600 ${SMALL}`;
  const width = ctx.measureText(text).width + 10;
  const from = x + width > view.width ? x - width : x;
  if (!isFree(from, width, plateY())) return;
  ctx.fillStyle = ink;
  ctx.fillRect(from, plateY() - 7, width, 14);
  ctx.fillStyle = colour.panel;
  ctx.textAlign = 'left';
  ctx.fillText(text, from + 5, plateY() + 0.5);
  ctx.font = FONT;
}

// Draws a ring around the selected event, an outline of its item, and a line at its time.
function drawSelected() {
  const at = selection.index === null ? null : anchorOf(selection.index);
  if (!at) return;
  ctx.strokeStyle = colour.accent;
  drawSelectedItem(itemOf[selection.index]);
  ctx.globalAlpha = 0.5;
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.moveTo(xOf(times[selection.index]), AXIS);
  ctx.lineTo(xOf(times[selection.index]), view.height);
  ctx.stroke();
  ctx.globalAlpha = 1;
  ctx.lineWidth = 2;
  ctx.beginPath();
  ctx.arc(at.x, at.y, 8, 0, 2 * Math.PI);
  ctx.stroke();
}

function drawSelectedItem(item) {
  ctx.lineWidth = 2.5;
  ctx.beginPath();
  if (item.type === 'message') {
    const { x, y, endX, endY } = messageEnds(item);
    ctx.moveTo(x, y);
    ctx.lineTo(endX, endY);
  } else if (item.type === 'bar') {
    const { x, width } = span(item, 2);
    const { y, height } = barBox(item);
    ctx.rect(x - 1, y - 1, width + 2, height + 2);
  }
  ctx.stroke();
}
