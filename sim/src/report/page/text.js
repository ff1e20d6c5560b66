// Events as text: for the tooltip, the list and the details.

const nodeName = (node) => (node === null || node === undefined ? '-' : `node-${node}`);
const seconds = (index) => `${(events[index].at_ms / 1000).toFixed(3)} s`;
const lineOf = (index) =>
  `${(events[index].at_ms / 1000).toFixed(3).padStart(9)}s ${nodeName(nodeOf(index)).padEnd(7)} ${lines[index]}`;

const NODES = new Set(['node', 'remote', 'to', 'from', 'a', 'b']);

// Returns all fields of an event, those of nested objects after their parents.
function fieldsOf(value, into = []) {
  for (const [name, field] of Object.entries(value)) {
    if (Array.isArray(field)) into.push([name, field.join(' ')]);
    else if (field !== null && typeof field === 'object') fieldsOf(field, into);
    else if (NODES.has(name)) into.push([name, nodeName(field)]);
    else if (name === 'at_ms') into.push(['time', `${field} ms`]);
    else into.push([name.replaceAll('_', ' '), field === null ? 'none' : String(field)]);
  }
  return into;
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'text') made.textContent = value;
    else if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const table = (rows) => element('table', {}, ...rows.map(([name, value]) =>
  element('tr', {}, element('th', { scope: 'row', text: name }), element('td', { text: value }))));

// Returns rows about an item beyond its event: its end and its duration.
function extentOf(item) {
  if (!item || item.type === 'point' || item.type === 'line') return [];
  const took = item.other === null ? null : events[item.other].at_ms - (item.index === null ? 0 : events[item.index].at_ms);
  if (item.type === 'message') {
    if (item.lost) return [['received', 'never']];
    return [['received', `${seconds(item.other)} by ${nodeName(item.to_node)}`], ['in flight', `${took} ms`]];
  }
  const until = item.other === null ? 'the end of the trace' : seconds(item.other);
  const ended = item.type === 'bar' && item.other !== null ? [['ended', lines[item.other].replace(/^[^:]*: /, '')]] : [];
  return [['until', until], ...(took === null ? [] : [['lasted', `${took} ms`]]), ...ended];
}

function describe(item, index = item.index) {
  const text = index === null ? item.label : lines[index];
  const rows = index === null ? [] : fieldsOf(events[index]);
  const call = index === null ? null : callOf(index);
  if (call !== null && !rows.some(([name]) => name === 'call')) rows.push(['call', `${call}, by its mux id`]);
  return { text, rows: [...rows, ...extentOf(item)] };
}

const TIP_ITEMS = 3;

function fillTip(tip, hits) {
  const parts = hits.slice(0, TIP_ITEMS).flatMap((item, at) => {
    const { text, rows } = describe(item);
    return [...(at ? [element('hr')] : []), element('b', { text }), table(rows)];
  });
  if (hits.length > TIP_ITEMS) {
    parts.push(element('hr'), `and ${hits.length - TIP_ITEMS} more here; click again for the next`);
  }
  tip.replaceChildren(...parts);
}

const CALL_LINES = 300;

function fillDetails(details, index, select) {
  if (index === null) {
    const hint = 'Click on an item of the diagram, or on a line of the list.';
    details.replaceChildren(element('p', { class: 'empty', text: hint }));
    return;
  }
  const { text, rows } = describe(itemOf[index], index);
  const parts = [element('div', {}, element('p', { class: 'text', text }), table(rows))];
  const call = callOf(index);
  if (call !== null) {
    const indices = indicesOfCall.get(call);
    const ofCall = element('div', {}, element('h3', { text: `Call ${call}: ${indices.length} events` }));
    const first = Math.max(Math.min(indices.indexOf(index) - CALL_LINES / 2, indices.length - CALL_LINES), 0);
    for (const one of indices.slice(first, first + CALL_LINES)) {
      ofCall.append(element('button', {
        type: 'button', class: one === index ? 'of-call here' : 'of-call', text: lineOf(one), onclick: () => select(one),
      }));
    }
    parts.push(ofCall);
  }
  details.replaceChildren(...parts);
  for (const here of details.querySelectorAll('.here')) here.parentElement.scrollTop = here.offsetTop - 60;
}

// Returns a summary of the run in one line.
function facts() {
  const lost = messages.filter((message) => message.lost).length;
  const made = bars.filter((bar) => bar.side === 'caller');
  const good = made.filter((bar) => bar.tone === 'success').length;
  const count = (number) => number.toLocaleString('en');
  return [
    `seed ${data.seed}`, `${diagram.nodes} nodes`, `${(lastTime / 1000).toFixed(1)} s`,
    `${count(events.length)} events`, `${count(messages.length)} messages, ${count(lost)} never arrived`,
    `${count(made.length)} calls, ${count(good)} completed`,
  ].join(' · ');
}

const LEGEND = [
  ['Calls: above the wire where made, below it where served', null],
  ['success', 'completed, returned'], ['failed', 'failed'], ['wrong', 'wrong response'], ['lost', 'disconnected, crashed'],
  ['expired', 'deadline'], ['cancelled', 'cancelled'], ['refused', 'refused, not sent'], ['open', 'not ended'],
  ['Locks: above the wire while waited for, below it while held', null],
  ['Connections: a strip for each remote', null],
  ['connected', 'connected'], ['connecting', 'connecting'], ['backoff', 'backoff'], ['shutdown', 'shut down'],
  ['Messages and other events', null],
  ['message', 'message of a call'], ['faint', 'message of the connection'], ['lost-message', 'never arrived'],
  ['fault', 'fault on a link (hatched)'], ['off', 'a node without power (grey)'],
  ['\u25b6 fault, or process started \u00b7 \u25cb socket opened \u00b7 \u00d7 socket closed \u00b7 \u25c6 fault point', null],
  ['A framed bar is a stream: a stroke is a message sent, a dot one received, a block the end. Events of one tick are spread over it in their order.', null],
  ['Wheel: zoom. Drag: move. Click again: the next item underneath. Keys: arrows, + \u2212 F zoom; N P next and previous event; C only the call of the selected event; V next violation; Esc.', null],
];

function fillLegend(legend) {
  legend.replaceChildren(...LEGEND.map(([name, text]) => {
    if (text === null) return element('p', { text: name });
    return element('span', {}, element('i', { style: `background: var(--${name})` }), text);
  }));
}
