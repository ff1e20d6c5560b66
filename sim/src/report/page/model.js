// The items to draw, indexed by time. The Rust side has paired the events that belong together.

const data = JSON.parse(document.getElementById('data').textContent);
const { events, lines, diagram } = data;

const GROUPS = [
  ['messages', 'Messages', ['message_sent', 'message_received']],
  ['calls', 'Calls', ['call_made', 'call_ended']],
  ['handlers', 'Handlers', ['handler_started', 'handler_ended']],
  ['streams', 'Stream messages', ['stream_opened', 'sent', 'received', 'input_ended']],
  ['connections', 'Connections', ['state', 'socket_opened', 'socket_closed', 'started']],
  ['locks', 'Locks', ['lock_requested', 'lock_granted', 'lock_failed', 'lock_lost', 'lock_ended', 'lock_forced']],
  ['store', 'Protected store', ['store_requested', 'store_reached', 'store_completed']],
  ['faults', 'Faults', ['fault', 'healed', 'quiet']],
  ['fault_points', 'Fault points', ['fault_point']],
];
const groupOfKind = new Map(GROUPS.flatMap(([group, , kinds]) => kinds.map((kind) => [kind, group])));
// A violation belongs to no group: it cannot be hidden.
const groupOf = (index) => groupOfKind.get(events[index].event);
const nodeOf = (index) => events[index].node ?? null;
const callOf = (index) => diagram.calls[index];

// Events of one tick are spread over it in their order, so that each is visible and can be clicked.
const times = (() => {
  const times = new Float64Array(events.length);
  for (let first = 0; first < events.length;) {
    const at = events[first].at_ms;
    let end = first;
    while (end < events.length && events[end].at_ms === at) end++;
    const next = end < events.length ? events[end].at_ms - at : data.tick_ms;
    const room = 0.9 * Math.min(data.tick_ms, Math.max(next, 0));
    for (let index = first; index < end; index++) times[index] = at + room * (index - first) / (end - first);
    first = end;
  }
  return times;
})();
const lastTime = events.length ? times[events.length - 1] : 0;
const WHOLE = { from: 0, to: Math.max(lastTime * 1.005, data.tick_ms) };

// Items sorted by start, with the largest end so far: the items that overlap a range of time are a
// slice of that order.
class Timeline {
  constructor(items) {
    this.items = items.sort((one, other) => one.from - other.from || one.index - other.index);
    let reach = -Infinity;
    this.reach = this.items.map((item) => (reach = Math.max(reach, item.to)));
  }

  each(from, to, take) {
    const first = lowerBound(this.items.length, (at) => this.reach[at] >= from);
    for (let at = first; at < this.items.length && this.items[at].from <= to; at++) {
      if (this.items[at].to >= from) take(this.items[at]);
    }
  }
}

// Returns the first number below `length` for which `holds`; it must hold for all larger ones.
function lowerBound(length, holds) {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle; else low = middle + 1;
  }
  return low;
}

const endOf = (index) => (index === null ? WHOLE.to : times[index]);

const messages = diagram.messages.map((arrow) => ({
  type: 'message', group: 'messages', index: arrow.sent, other: arrow.received,
  node: arrow.from, to_node: arrow.to, call: callOf(arrow.sent), lost: arrow.received === null,
  control: !events[arrow.sent].message.mux_id,
  from: times[arrow.sent], to: arrow.received === null ? times[arrow.sent] : times[arrow.received],
}));

// Bars of one lane and side that overlap are in different rows, each in the lowest free one.
const rowCounts = new Map();
const bars = (() => {
  const free = new Map();
  return diagram.bars.map((bar) => {
    const item = {
      type: 'bar', group: groupOf(bar.start), index: bar.start, other: bar.end,
      node: bar.node, side: bar.side, call: bar.call, stream: bar.stream, tone: bar.tone, row: 0, marks: 0,
      from: times[bar.start], to: endOf(bar.end),
    };
    const lane = `${bar.node} ${bar.side}`;
    if (!free.has(lane)) free.set(lane, []);
    const rows = free.get(lane);
    item.row = rows.findIndex((until) => until <= item.from);
    if (item.row < 0) item.row = rows.push(0) - 1;
    rows[item.row] = item.to;
    rowCounts.set(lane, rows.length);
    return item;
  });
})();
const barOf = new Map(bars.map((bar) => [`${bar.node} ${bar.side} ${bar.call}`, bar]));

const states = diagram.states.map((span) => ({
  type: 'state', group: 'connections', index: span.start, other: span.end, node: span.node,
  remote: span.remote, state: events[span.start].state, call: null,
  from: times[span.start], to: endOf(span.end),
}));

const faultSpans = diagram.faults.map((faultSpan) => ({
  type: 'fault-span', group: 'faults', index: faultSpan.start, other: faultSpan.end, node: null, call: null,
  nodes: faultSpan.nodes, kind: faultSpan.kind, label: faultSpan.label, off: faultSpan.off,
  from: faultSpan.start === null ? 0 : times[faultSpan.start], to: endOf(faultSpan.end),
}));

const LINES = new Set(['violated', 'healed', 'quiet']);
const verticals = events.flatMap((event, index) => (LINES.has(event.event) ? [{
  type: 'line', group: groupOf(index), index, other: null, node: null, call: null,
  kind: event.event, from: times[index], to: times[index],
}] : []));

// Every event without another item is a point, so that each event has an item.
const points = (() => {
  const shown = new Uint8Array(events.length);
  for (const items of [messages, bars, states, verticals]) {
    for (const item of items) {
      shown[item.index] = 1;
      if (item.other !== null && item.type !== 'state') shown[item.other] = 1;
    }
  }
  const points = [];
  events.forEach((event, index) => {
    if (shown[index]) return;
    const side = event.end ?? (event.event === 'stream_opened' ? 'caller' : null);
    const node = nodeOf(index) ?? (event.event === 'fault' ? event.fault.node ?? null : null);
    const bar = side && barOf.get(`${node} ${side} ${callOf(index)}`);
    if (bar) bar.marks++;
    points.push({
      type: 'point', group: groupOf(index), index, other: null, node, call: callOf(index),
      kind: event.event, bar,
      from: times[index], to: times[index],
    });
  });
  return points;
})();

const everything = {
  faultSpans: new Timeline(faultSpans), states: new Timeline(states), bars: new Timeline(bars),
  messages: new Timeline(messages), points: new Timeline(points), lines: new Timeline(verticals),
};

// The item that shows an event, by the event's index.
const itemOf = (() => {
  const items = new Array(events.length);
  for (const shown of [states, bars, messages, points, verticals]) {
    for (const item of shown) {
      items[item.index] = item;
      if (item.other !== null && item.type !== 'state') items[item.other] = item;
    }
  }
  return items;
})();

const indicesOfCall = new Map();
diagram.calls.forEach((call, index) => {
  if (call === null) return;
  if (!indicesOfCall.has(call)) indicesOfCall.set(call, []);
  indicesOfCall.get(call).push(index);
});
