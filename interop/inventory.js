// What the reference client offers, by name: `node interop/inventory.js > interop/inventory.json`.
//
// Classes, methods and values are asked of the running package. What only its type declarations say is read from
// these: who may call a method, the names of options and of events. Names only; nothing here looks at how it works.
// `bullmq.toml` beside it says what each name is in toril, and a test that none is left out.

import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import * as bullmq from 'bullmq';

const require = createRequire(import.meta.url);
const home = join(dirname(require.resolve('bullmq')), '..', '..');
const { version, types } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8'));

// --- reading declarations -------------------------------------------------------------------------------------

const withoutComments = (text) =>
  text.replace(/("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\/\*[\s\S]*?\*\/|\/\/.*/g, (_, string) => string ?? '');

const CLOSING = { '{': '}', '(': ')', '[': ']', '<': '>' };

/** Where the bracket that opens at `start` closes; an arrow's `>` is no bracket. */
function closing(text, start) {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    if (text[at] in CLOSING) depth++;
    else if (Object.values(CLOSING).includes(text[at]) && text[at - 1] !== '=' && --depth === 0) return at;
  }
  throw new Error(`a bracket is never closed: ${text.slice(start, start + 80)}`);
}

/** Parts of `text` between `separator`s outside all brackets. */
function split(text, separator) {
  const parts = [];
  let from = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] in CLOSING) at = closing(text, at);
    else if (text[at] === separator) {
      parts.push(text.slice(from, at));
      from = at + 1;
    }
  }
  return [...parts, text.slice(from)].map((part) => part.trim()).filter(Boolean);
}

const MEMBER = /^((?:(?:public|private|protected|static|readonly|abstract|get|set)\s+)*)['"]?([\w$-]+)['"]?\??\s*([(<:]|$)/;

/** The members of an object type, {name, modifiers, rest}; `rest` is what follows the name. */
function members(body) {
  return split(body, ';').flatMap((part) => {
    const found = MEMBER.exec(part);
    if (!found || found[2] === 'constructor') return [];
    return [{ name: found[2], modifiers: found[1], rest: part.slice(found[0].length - found[3].length) }];
  });
}

/** Names of an object type; those of an object inside it as `outer.inner`. */
const namesOf = (body) =>
  members(body).flatMap(({ name, rest }) => {
    const inner = /^:\s*\{/.exec(rest);
    if (!inner) return [name];
    const start = inner[0].length - 1;
    return [name, ...namesOf(rest.slice(start + 1, closing(rest, start))).map((each) => `${name}.${each}`)];
  });

/** Names of the objects that are spelt out among the parameters of a function. */
function parameterNames(rest) {
  const start = rest.indexOf('(');
  if (start < 0) return [];
  const parameters = rest.slice(start + 1, closing(rest, start));
  const names = [];
  for (let at = 0; at < parameters.length; at++) {
    if (parameters[at] !== '{') continue;
    const end = closing(parameters, at);
    if (/:\s*$/.test(parameters.slice(0, at))) names.push(...namesOf(parameters.slice(at + 1, end)));
    at = end;
  }
  return names;
}

/** All declarations of classes, interfaces and types, [kind, name, body]; of a type all that follows its `=`. */
function* declarations(text) {
  for (const found of text.matchAll(/^(?:export )?(?:declare )?(?:abstract )?(class|interface|type) (\w+)/gm)) {
    const [, kind, name] = found;
    let at = found.index + found[0].length;
    if (kind === 'type') {
      const [body] = split(text.slice(at), ';');
      yield [kind, name, body.slice(body[0] === '<' ? closing(body, 0) + 1 : 0)];
      continue;
    }
    while (text[at] !== '{') at = text[at] === '<' ? closing(text, at) + 1 : at + 1;
    yield [kind, name, text.slice(at + 1, closing(text, at))];
  }
}

const declared = { class: {}, interface: {}, type: {} };
const folder = join(home, dirname(types));
for (const entry of readdirSync(folder, { recursive: true }).sort()) {
  if (!entry.endsWith('.d.ts')) continue;
  const text = withoutComments(readFileSync(join(folder, entry), 'utf8'));
  for (const [kind, name, body] of declarations(text)) declared[kind][name] = body;
}

// --- what there is --------------------------------------------------------------------------------------------

const sorted = (names) => [...new Set(names)].sort();
const isClass = (value) =>
  typeof value === 'function' && Object.getOwnPropertyDescriptor(value, 'prototype')?.writable === false;

/** A class: whom it extends, what callers see of it, what only it and its heirs see. */
function describe(name, value) {
  const known = members(declared.class[name] ?? '');
  const isHidden = new Set(known.filter((one) => /private|protected/.test(one.modifiers)).map((one) => one.name));
  const isDeclared = new Set(known.map((one) => one.name));
  const statics = Object.getOwnPropertyNames(value).filter((one) => !['length', 'name', 'prototype'].includes(one));
  const methods = Object.getOwnPropertyNames(value.prototype).filter((one) => one !== 'constructor');
  const properties = known.filter((one) => !/static/.test(one.modifiers)).map((one) => one.name);
  const all = sorted([...methods, ...properties, ...statics]);
  const options = known.flatMap((one) =>
    isHidden.has(one.name) ? [] : parameterNames(one.rest).map((each) => `${one.name}.${each}`),
  );
  const isPublic = (one) => !one.startsWith('_') && !isHidden.has(one) && isDeclared.has(one);
  return {
    extends: Object.getPrototypeOf(value).name || null,
    public: sorted([...all.filter(isPublic), ...options]),
    internal: all.filter((one) => !isPublic(one)),
  };
}

const exported = Object.entries(bullmq).filter(([name]) => name !== 'default' && name !== '__esModule');
const inventory = { version, classes: {}, functions: [], values: {}, options: {}, words: {}, events: {} };
for (const [name, value] of exported.sort()) {
  if (isClass(value)) inventory.classes[name] = describe(name, value);
  else if (typeof value === 'function') inventory.functions.push(name);
  else if (typeof value === 'object' && !(value instanceof RegExp)) {
    inventory.values[name] = sorted(Object.keys(value).filter((key) => !/^-?\d+$/.test(key)));
  } else inventory.values[name] = [];
}
inventory.values['Backoffs.builtinStrategies'] = sorted(Object.keys(bullmq.Backoffs.builtinStrategies));
for (const [name, body] of Object.entries(declared.interface).sort()) {
  if (name.endsWith('Listener')) {
    const events = members(body).map((one) => [one.name, sorted(parameterNames(one.rest.replace(/^:/, '')))]);
    inventory.events[name] = Object.fromEntries(events.sort());
  } else inventory.options[name] = sorted(namesOf(body));
}
for (const [name, body] of Object.entries(declared.type).sort()) {
  const objects = split(body.replace(/^\s*=/, ''), '&').flatMap((part) => split(part, '|'));
  const names = objects.filter((part) => part.startsWith('{')).flatMap((part) => namesOf(part.slice(1, -1)));
  const words = objects.map((part) => /^['"](.*)['"]$/.exec(part)?.[1]).filter(Boolean);
  if (names.length) inventory.options[name] = sorted(names);
  else if (words.length) inventory.words[name] = sorted(words);
}
process.stdout.write(JSON.stringify(inventory, null, 1) + '\n');
process.exit(0);
