'use strict';
// The page works by its address: #q=exit&verdict=departs&cell=17 can be sent to somebody.

const {cells, about} = JSON.parse(document.getElementById('data').textContent);
const dialog = document.getElementById('cell');
const filters = ['q', 'verdict', 'check', 'form', 'differ'].map(id => document.getElementById(id));
const rows = [...document.querySelectorAll('tr.case')].map(row => ({
  row,
  text: (row.id + ' ' + row.cells[0].textContent).toLowerCase(),
  columns: [...row.cells].slice(1).map(cell => [...cell.children]),
}));

const value = filter => filter.type === 'checkbox' ? (filter.checked ? '1' : '') : filter.value;

/** An element: text is always text, never markup. */
function element(name, attributes, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

/** What the runtimes made of a row: by form, so that a form that one lacks is no difference. */
function differs({columns}) {
  const seen = new Map();
  for (const buttons of columns) {
    for (const button of buttons.filter(button => button.className !== 'skipped')) {
      const {form, got} = cells[button.dataset.cell];
      seen.set(form, (seen.get(form) ?? new Set()).add(got));
    }
  }
  return [...seen.values()].some(outcomes => outcomes.size > 1);
}

function apply() {
  const [q, verdict, check, form, differ] = filters.map(value);
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  let count = 0;
  for (const entry of rows) {
    let any = false;
    for (const button of entry.columns.flat()) {
      const cell = cells[button.dataset.cell];
      const text = () => entry.text + ' ' + (cell.got + ' ' + cell.text + ' ' + cell.reason).toLowerCase();
      const fits = (!verdict || button.className === verdict)
        && (!form || button.dataset.form === form)
        && (!check || button.dataset.checks.split(' ').includes(check))
        && words.every(word => text().includes(word));
      button.hidden = !fits;
      any ||= fits;
      count += fits;
    }
    entry.row.hidden = !any || (differ && !differs(entry));
    shown += !entry.row.hidden;
  }
  for (const body of document.querySelectorAll('main tbody')) {
    body.hidden = !body.querySelector('tr.case:not([hidden])');
  }
  document.getElementById('count').value = `${shown} cases, ${count} cells`;
  document.getElementById('none').hidden = shown > 0;
}

const ended = end => typeof end === 'string'
  ? {hung: 'hang', nowhere: 'nobody to wait for'}[end]
  : Object.entries(end).map(([how, n]) => (how === 'exited' ? 'exit ' : 'signal ') + n).join();

function table(head, lines) {
  const row = (kind, texts) => element('tr', {}, ...texts.map(text => element(kind, {}, String(text))));
  return element('table', {}, element('tbody', {}, row('th', head), ...lines.map(line => row('td', line))));
}

/** Who reads the words of a verb that fails. */
const starters = [['podman_run', 'podman run'], ['docker_daemon', 'docker daemon'], ['docker_client', 'docker run']];
const consumers = {
  run: starters, create: starters, start: starters,
  exec: [['podman_exec', 'podman exec'], ['docker_daemon', 'docker daemon'], ['crio_exec', 'CRI-O exec']],
  kill: [['containerd_kill', 'containerd'], ['crio_kill', 'CRI-O']],
  delete: [['containerd_delete', 'containerd']],
};

function shownCall(call) {
  const parts = [element('pre', {}, '$ RUNTIME ' + call.args.map(quoted).join(' '))];
  parts.push(element('p', {}, element('b', {}, ended(call.ended)), ` after ${call.ms} ms`));
  if (call.stderr) parts.push(element('p', {className: 'dim'}, 'stderr'), element('pre', {}, call.stderr));
  if (call.log.length) parts.push(element('p', {className: 'dim'}, 'log'), element('pre', {}, call.log.join('\n')));
  if (call.classes) {
    const lines = (consumers[call.args[0]] ?? []).filter(([who]) => who in call.classes)
      .map(([who, title]) => [title, call.classes[who]]);
    if (lines.length) {
      parts.push(element('p', {className: 'dim'}, 'what engines make of it'), table(['engine', 'takes it for'], lines));
    }
  }
  return parts;
}

const quoted = word => /^[\w@%+=:,.\/-]+$/.test(word) ? word : "'" + word.replaceAll("'", "'\\''") + "'";

function show(index) {
  const cell = cells[index];
  if (!cell) return;
  const told = about[cell.id];
  const verdict = document.querySelector(`button[data-cell="${index}"]`).className;
  const words = {pass: 'conforms', departs: 'departs', known: 'departs as known', skipped: 'skipped'};
  const parts = [
    element('button', {className: 'close', title: 'Close (Esc)', onclick: () => dialog.close()}, '×'),
    element('h2', {}, element('code', {}, cell.id)),
    element('p', {}, element('span', {className: 'tag ' + verdict}, words[verdict]), ' ',
      `${cell.runtime} (${cell.mode}), ${cell.form}, ${cell.ms} ms`,
      cell.runs > 1 ? `, ${cell.departed} of ${cell.runs} runs depart` : null),
    element('p', {}, cell.title),
  ];
  if (told?.reason) parts.push(element('p', {className: 'dim'}, told.reason));
  if (told?.source) parts.push(element('p', {className: 'dim'}, told.source));
  if (cell.known) parts.push(element('p', {}, 'Known: ' + cell.known));
  if (verdict === 'skipped') parts.push(element('p', {}, cell.reason));
  else parts.push(table(['expected', 'got'], [[cell.expected, cell.got]]));
  if (cell.text) parts.push(element('h3', {}, 'text'), element('pre', {}, cell.text));
  if (cell.findings?.length) {
    parts.push(element('h3', {}, 'what departs'));
    parts.push(table(['check', 'expected', 'got'], cell.findings.map(f => [f.check, f.expected, f.got])));
  }
  const seen = cell.seen;
  if (seen) {
    const groups = [['prepared by', seen.setup], ['run', seen.calls], ['cleaned up by', seen.cleanup]];
    for (const [title, calls] of groups.filter(([, calls]) => calls.length)) {
      parts.push(element('h3', {}, title), ...calls.flatMap(shownCall));
    }
    if (seen.waited) parts.push(element('h3', {}, 'the supervisor saw'), element('p', {}, ended(seen.waited)));
    if (seen.output.size) {
      parts.push(element('h3', {}, `output, ${seen.output.size} bytes`),
        element('pre', {}, seen.output.head.slice(0, 2000)));
    }
    if (seen.leftovers.length) {
      parts.push(element('h3', {}, 'left over'), element('pre', {}, seen.leftovers.join('\n')));
    }
  }
  dialog.replaceChildren(...parts);
  dialog.dataset.cell = index;
  if (!dialog.open) dialog.showModal();
}

function remember() {
  const state = new URLSearchParams();
  for (const filter of filters) if (value(filter)) state.set(filter.id, value(filter));
  if (dialog.open) state.set('cell', dialog.dataset.cell);
  history.replaceState(null, '', '#' + state);
}

function recall() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const filter of filters) {
    if (filter.type === 'checkbox') filter.checked = state.has(filter.id);
    else filter.value = state.get(filter.id) ?? '';
  }
  apply();
  if (state.has('cell')) show(Number(state.get('cell')));
}

for (const filter of filters) filter.addEventListener('input', () => { apply(); remember(); });
document.querySelector('main').addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button) { show(Number(button.dataset.cell)); remember(); }
});
for (const card of document.querySelectorAll('.card')) {
  card.addEventListener('click', () => { filters[1].value = 'departs'; apply(); remember(); });
}
dialog.addEventListener('click', event => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener('close', remember);
// The arrows go from cell to cell, also while one is open.
document.addEventListener('keydown', event => {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (!step || !dialog.open) return;
  const visible = [...document.querySelectorAll('main button:not([hidden])')].filter(b => b.offsetParent);
  const at = visible.findIndex(button => button.dataset.cell === dialog.dataset.cell);
  const next = visible[at + step];
  if (next) { show(Number(next.dataset.cell)); remember(); }
});
window.addEventListener('hashchange', recall);
recall();
