// The visible part of the run, the positions of items in it, and the selection.

const GUTTER = 92;
const AXIS = 22;
// Height of the lane of the run itself: plates of vertical lines, and below them the faults.
const RUN = 36;
const LANE_MIN = 64;
// Zooming in further than a fiftieth of a millisecond shows nothing more.
const SPAN_MIN = 0.02;

const view = { from: WHOLE.from, to: WHOLE.to, width: 800, height: 400, lanes: [], laneOf: [] };
const shown = {
  nodes: Array.from({ length: diagram.nodes }, () => true),
  groups: new Set(GROUPS.map(([group]) => group)),
  calls: null,
};
const selection = { index: null, hover: null };

const plotWidth = () => Math.max(view.width - GUTTER - 10, 10);
const xOf = (time) => GUTTER + (time - view.from) * plotWidth() / (view.to - view.from);
const timeOf = (x) => view.from + (x - GUTTER) * (view.to - view.from) / plotWidth();

function setRange(from, to) {
  const whole = WHOLE.to - WHOLE.from;
  const span = Math.min(Math.max(to - from, SPAN_MIN), whole);
  const middle = (from + to) / 2;
  view.from = Math.min(Math.max(middle - span / 2, WHOLE.from), WHOLE.to - span);
  view.to = view.from + span;
}

function zoomAround(time, factor) {
  const span = Math.min(Math.max((view.to - view.from) * factor, SPAN_MIN), WHOLE.to - WHOLE.from);
  const part = (time - view.from) / (view.to - view.from);
  const from = time - part * span;
  setRange(from, from + span);
}

// Lanes share the height, down to the smallest height at which items can be distinguished.
function layOut(width, height) {
  const nodes = shown.nodes.flatMap((is, node) => (is ? [node] : []));
  const room = height - AXIS - RUN - 4;
  const laneHeight = Math.max(nodes.length ? room / nodes.length : room, LANE_MIN);
  view.width = width;
  view.height = Math.max(height, AXIS + RUN + 4 + laneHeight * nodes.length);
  view.laneOf = [];
  view.lanes = nodes.map((node, at) => {
    const top = AXIS + RUN + at * laneHeight;
    const lane = { node, top, bottom: top + laneHeight };
    view.laneOf[node] = lane;
    placeStrips(lane, laneHeight);
    placeRows(lane);
    return lane;
  });
}

// A strip for each remote, at the top of the lane. Together they take at most a quarter of it.
function placeStrips(lane, laneHeight) {
  const remotes = shown.nodes.flatMap((_, node) => (node === lane.node ? [] : [node]));
  const each = Math.min(11, (laneHeight * 0.25) / Math.max(remotes.length, 1));
  lane.strip = each;
  lane.stripOf = [];
  const strips = shown.groups.has('connections') || shown.groups.has('faults');
  remotes.forEach((remote, at) => { lane.stripOf[remote] = lane.top + 4 + at * each; });
  lane.stripsEnd = lane.top + 4 + (strips ? remotes.length * each : 0);
}

// Outbound calls of the node are above its wire, inbound ones below it. Each side has as many rows as
// there are ever calls at once.
function placeRows(lane) {
  const above = rowCounts.get(`${lane.node} caller`) ?? 0;
  const below = rowCounts.get(`${lane.node} callee`) ?? 0;
  const room = lane.bottom - lane.stripsEnd - 24;
  const part = Math.min(Math.max(above / Math.max(above + below, 1), 0.22), 0.78);
  lane.wire = lane.stripsEnd + 10 + room * (above + below ? part : 0.5);
  lane.rows = {
    caller: rowsIn(lane.wire - 5 - lane.stripsEnd - 4, above),
    callee: rowsIn(lane.bottom - 4 - lane.wire - 5, below),
  };
}

function rowsIn(room, count) {
  const height = Math.min(16, room / Math.max(count, 1));
  // Below two pixels, rows are reused from the first.
  return height >= 2 ? { height, count } : { height: 2, count: Math.max(Math.floor(room / 2), 1) };
}

function barBox(bar) {
  const lane = view.laneOf[bar.node];
  const rows = lane.rows[bar.side];
  const row = bar.row % Math.max(rows.count, 1);
  const gap = rows.height > 4 ? 1 : 0;
  const y = bar.side === 'caller' ? lane.wire - 5 - (row + 1) * rows.height : lane.wire + 5 + row * rows.height;
  return { y, height: rows.height - gap };
}

const plateY = () => AXIS + 10;
const runWire = () => AXIS + 27;

function pointY(point) {
  if (point.bar && shown.groups.has(point.bar.group)) {
    const box = barBox(point.bar);
    return box.y + box.height / 2;
  }
  const lane = point.node === null ? null : view.laneOf[point.node];
  if (!lane || point.kind === 'fault') return runWire();
  return lane.wire;
}

// Endpoints of a message's arrow: from wire to wire, or a short way toward the receiver if it was lost.
function messageEnds(message) {
  const start = view.laneOf[message.node];
  const end = message.to_node === null ? null : view.laneOf[message.to_node];
  const x = xOf(message.from);
  if (!message.lost) return { x, y: start.wire, endX: xOf(message.to), endY: end.wire };
  const down = end ? end.top > start.top : true;
  return { x, y: start.wire, endX: x + 7, endY: start.wire + (down ? 22 : -22) };
}

function isShown(item) {
  if (item.group && !shown.groups.has(item.group)) return false;
  if (item.type === 'fault-span') return item.nodes.some((node) => shown.nodes[node]);
  if (item.node !== null && !shown.nodes[item.node] && item.kind !== 'fault') return false;
  if (item.type === 'message' && item.to_node !== null) return shown.nodes[item.to_node];
  return true;
}

// The highlighted calls: those of the filter, or else that of the selected event.
function focus() {
  if (shown.calls) return shown.calls;
  const call = selection.index === null ? null : callOf(selection.index);
  return call === null ? null : new Set([call]);
}

const CLASSES = ['points', 'lines', 'messages', 'bars', 'states', 'faultSpans'];

// Returns the items under the cursor, the nearest and smallest first.
function hitsAt(x, y) {
  if (x < GUTTER - 6) return [];
  const found = [];
  CLASSES.forEach((name, order) => {
    everything[name].each(timeOf(x - 10), timeOf(x + 10), (item) => {
      if (!isShown(item)) return;
      const distance = distanceTo(item, x, y);
      if (distance !== null) found.push({ item, rank: order * 100 + distance });
    });
  });
  return found.sort((one, other) => one.rank - other.rank).map(({ item }) => item);
}

// Returns null if the item is too far away.
function distanceTo(item, x, y) {
  const within = (distance, limit) => (distance <= limit ? distance : null);
  if (item.type === 'point') return within(Math.hypot(xOf(item.from) - x, pointY(item) - y), 6);
  if (item.type === 'line') return within(Math.abs(xOf(item.from) - x), 3);
  if (item.type === 'message') return within(distanceToSegment(messageEnds(item), x, y), 4);
  const outside = Math.max(xOf(item.from) - x, x - xOf(item.to), 0);
  if (outside > 3) return null;
  if (item.type === 'bar') {
    const { y: top, height } = barBox(item);
    return y >= top - 1 && y <= top + height + 1 ? outside : null;
  }
  if (item.type === 'state') {
    const top = view.laneOf[item.node].stripOf[item.remote];
    return y >= top && y < top + view.laneOf[item.node].strip ? outside : null;
  }
  return item.nodes.some((node) => {
    const lane = view.laneOf[node];
    return lane && y >= lane.top && y < lane.bottom;
  }) ? outside : null;
}

function distanceToSegment({ x: x0, y: y0, endX: x1, endY: y1 }, x, y) {
  const length = (x1 - x0) ** 2 + (y1 - y0) ** 2;
  const along = length ? Math.min(Math.max(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0), 1) : 0;
  return Math.hypot(x0 + along * (x1 - x0) - x, y0 + along * (y1 - y0) - y);
}

// Returns a point on the canvas at which a click hits an event.
function whereIs(index) {
  const item = itemOf[index];
  if (!item || !isShown(item)) return null;
  if (item.type === 'message') {
    const { x, y, endX, endY } = messageEnds(item);
    return { x: (x + endX) / 2, y: (y + endY) / 2 };
  }
  if (item.type === 'bar') {
    const { y, height } = barBox(item);
    return { x: xOf(times[index]) + (index === item.index ? 1 : -1), y: y + height / 2 };
  }
  if (item.type === 'state') {
    const lane = view.laneOf[item.node];
    return { x: xOf(item.from) + 1, y: lane.stripOf[item.remote] + lane.strip / 2 };
  }
  if (item.type === 'line') return { x: xOf(item.from), y: plateY() };
  return { x: xOf(item.from), y: pointY(item) };
}

// Returns the position of an event: for a message, the end that the event is about.
function anchorOf(index) {
  const item = itemOf[index];
  if (item?.type !== 'message' || !isShown(item)) return whereIs(index);
  const { x, y, endX, endY } = messageEnds(item);
  return index === item.index ? { x, y } : { x: endX, y: endY };
}
