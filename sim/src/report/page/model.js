// What there is to draw: items with a time, found again by time. Rust has paired what belongs together.

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
const groupOf = (place) => groupOfKind.get(events[place].event);
const nodeOf = (place) => events[place].node ?? null;
const callOf = (place) => diagram.calls[place];

// Events of one tick are spread over it in their order, so that each can be seen and hit.
const times = (() => {
  const times = new Float64Array(events.length);
  for (let first = 0; first < events.length;) {
    const at = events[first].at_ms;
    let end = first;
    while (end < events.length && events[end].at_ms === at) end++;
    const next = end < events.length ? events[end].at_ms - at : data.tick_ms;
    const room = 0.9 * Math.min(data.tick_ms, Math.max(next, 0));
    for (let place = first; place < end; place++) times[place] = at + room * (place - first) / (end - first);
    first = end;
  }
  return times;
})();
const lastTime = events.length ? times[events.length - 1] : 0;
const WHOLE = { from: 0, to: Math.max(lastTime * 1.005, data.tick_ms) };

// Items by their beginning, with how far any up to there reaches: what overlaps a range of time is a
// slice of that order.
class Timeline {
  constructor(items) {
    this.items = items.sort((one, other) => one.from - other.from || one.place - other.place);
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

// The first number below `length` for which `holds`; it must hold for all behind that.
function lowerBound(length, holds) {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle; else low = middle + 1;
  }
  return low;
}

const endOf = (place) => (place === null ? WHOLE.to : times[place]);

const messages = diagram.messages.map((arrow) => ({
  type: 'message', group: 'messages', place: arrow.sent, other: arrow.received,
  node: arrow.from, to_node: arrow.to, call: callOf(arrow.sent), lost: arrow.received === null,
  control: !events[arrow.sent].message.mux_id,
  from: times[arrow.sent], to: arrow.received === null ? times[arrow.sent] : times[arrow.received],
}));

// Bars of one lane and side that overlap stand in different rows, the lowest that is free.
const rowCounts = new Map();
const bars = (() => {
  const free = new Map();
  return diagram.bars.map((bar) => {
    const item = {
      type: 'bar', group: groupOf(bar.start), place: bar.start, other: bar.end,
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

const states = diagram.states.map((stay) => ({
  type: 'state', group: 'connections', place: stay.start, other: stay.end, node: stay.node,
  remote: stay.remote, state: events[stay.start].state, call: null,
  from: times[stay.start], to: endOf(stay.end),
}));

const spells = diagram.trouble.map((spell) => ({
  type: 'spell', group: 'faults', place: spell.start, other: spell.end, node: null, call: null,
  nodes: spell.nodes, kind: spell.kind, label: spell.label, off: spell.off,
  from: spell.start === null ? 0 : times[spell.start], to: endOf(spell.end),
}));

const LINES = new Set(['violated', 'healed', 'quiet']);
const verticals = events.flatMap((event, place) => (LINES.has(event.event) ? [{
  type: 'line', group: groupOf(place), place, other: null, node: null, call: null,
  kind: event.event, from: times[place], to: times[place],
}] : []));

// Every event that nothing else shows is a point, so that none is without its place.
const points = (() => {
  const shown = new Uint8Array(events.length);
  for (const items of [messages, bars, states, verticals]) {
    for (const item of items) {
      shown[item.place] = 1;
      if (item.other !== null && item.type !== 'state') shown[item.other] = 1;
    }
  }
  const points = [];
  events.forEach((event, place) => {
    if (shown[place]) return;
    const side = event.end ?? (event.event === 'stream_opened' ? 'caller' : null);
    const node = nodeOf(place) ?? (event.event === 'fault' ? event.fault.node ?? null : null);
    const bar = side && barOf.get(`${node} ${side} ${callOf(place)}`);
    if (bar) bar.marks++;
    points.push({
      type: 'point', group: groupOf(place), place, other: null, node, call: callOf(place),
      kind: event.event, bar,
      from: times[place], to: times[place],
    });
  });
  return points;
})();

const everything = {
  spells: new Timeline(spells), states: new Timeline(states), bars: new Timeline(bars),
  messages: new Timeline(messages), points: new Timeline(points), lines: new Timeline(verticals),
};

// The item that shows an event, for each event that one shows.
const itemOf = (() => {
  const items = new Array(events.length);
  for (const shown of [states, bars, messages, points, verticals]) {
    for (const item of shown) {
      items[item.place] = item;
      if (item.other !== null && item.type !== 'state') items[item.other] = item;
    }
  }
  return items;
})();

const placesOfCall = new Map();
diagram.calls.forEach((call, place) => {
  if (call === null) return;
  if (!placesOfCall.has(call)) placesOfCall.set(call, []);
  placesOfCall.get(call).push(place);
});
