// Writes what the client kits take from schema/schema.graphql: types, enums, possible types, and the fields that they
// select. Usage: node clients/generate.mjs [--check]; with --check nothing is written, and a difference is exit code 1.
// It needs the npm package `graphql` of tests/clients.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../tests/clients/', import.meta.url));
const { buildSchema, getNamedType, isEnumType, isInputObjectType, isInterfaceType, isLeafType, isListType, isNonNullType,
  isObjectType, isScalarType, isUnionType } = require('graphql');

const HEAD = 'Generated from schema/schema.graphql by clients/generate.mjs. Do not edit.';
const SCALARS = { Boolean: 'boolean', DateTime: 'string', Duration: 'string', Float: 'number', ID: 'string', Int: 'number',
  Int64: 'string', JSON: 'unknown', String: 'string' };
/** Fields that the kits do not select: large, different in each answer, or about the client. `fields` adds them. */
const NOT_SELECTED = ['rows', 'transitions', 'requestId', 'queue', 'query', 'viewerGrant'];

const schema = buildSchema(readFileSync(new URL('../schema/schema.graphql', import.meta.url), 'utf8'));
const types = Object.values(schema.getTypeMap()).filter(({ name }) => !name.startsWith('__'));
const abstract = types.filter((type) => isUnionType(type) || isInterfaceType(type));
const fieldsOf = (type) => Object.values(type.getFields());
const membersOf = (type) => schema.getPossibleTypes(type).map(({ name }) => name);

/** A description as a comment. */
function comment(text, indent = '') {
  const lines = (text ?? '').trim().replaceAll('*/', '* /').split('\n').map((line) => line.trim());
  if (lines.length === 1) return lines[0] ? `${indent}/** ${lines[0]} */\n` : '';
  return `${indent}/**\n${lines.map((line) => `${indent} * ${line}`.trimEnd()).join('\n')}\n${indent} */\n`;
}

function typescript(type) {
  if (isNonNullType(type)) return bare(type.ofType);
  return `${bare(type)} | null`;
}

function bare(type) {
  if (!isListType(type)) return type.name;
  const item = typescript(type.ofType);
  return item.includes('|') ? `(${item})[]` : `${item}[]`;
}

const member = ({ name, type, description, defaultValue }, isInput) => {
  const isOptional = isInput && (!isNonNullType(type) || defaultValue !== undefined);
  return `${comment(description, '  ')}  ${name}${isOptional ? '?' : ''}: ${typescript(type)};\n`;
};

function declaration(type) {
  const { name } = type;
  const head = comment(type.description);
  if (isScalarType(type)) return name in SCALARS && SCALARS[name] !== name.toLowerCase() ? `${head}export type ${name} = ${SCALARS[name]};\n` : '';
  if (isEnumType(type)) return `${head}export type ${name} =\n${type.getValues().map((value) => `${comment(value.description, '  ')}  | '${value.name}'`).join('\n')};\n`;
  if (isUnionType(type) || isInterfaceType(type)) {
    // `Node` is of any object with an id; the members of an interface have its fields
    return `${head}export type ${name} = ${membersOf(type).join(' | ')};\n`;
  }
  if (isInputObjectType(type) && type.isOneOf) {
    const forms = fieldsOf(type).map((one) => `{ ${one.name}: ${bare(one.type)}; ${fieldsOf(type).filter((other) => other !== one).map((other) => `${other.name}?: never`).join('; ')} }`);
    return `${head}export type ${name} = ${forms.join(' | ')};\n`;
  }
  if (isInputObjectType(type)) return `${head}export interface ${name} {\n${fieldsOf(type).map((field) => member(field, true)).join('')}}\n`;
  const roots = [schema.getQueryType(), schema.getMutationType(), schema.getSubscriptionType()];
  const args = roots.includes(type)
    ? fieldsOf(type).filter((field) => field.args.length).map((field) => {
      const title = `${name}${field.name[0].toUpperCase()}${field.name.slice(1)}Args`;
      return `/** The arguments of \`${name}.${field.name}\`. */\nexport interface ${title} {\n${field.args.map((arg) => member(arg, true)).join('')}}\n`;
    })
    : [];
  // the name is selected where a field can have several types
  const typename = abstract.some((one) => membersOf(one).includes(name)) ? `  __typename: '${name}';\n` : '';
  return [`${head}export interface ${name} {\n${typename}${fieldsOf(type).map((field) => member(field, false)).join('')}}\n`, ...args].join('\n');
}

/** A selection of every field that needs no argument. */
function selection(type, omitted = []) {
  return fieldsOf(type).filter(({ name }) => !NOT_SELECTED.includes(name) && !omitted.includes(name)).map(({ name, type: of }) => {
    const named = getNamedType(of);
    if (isLeafType(named)) return name;
    return named.name === 'Source' ? `${name} { name }` : `${name} { ${selection(named)} }`;
  }).join(' ');
}

const job = schema.getType('Job');
const shared = fieldsOf(job).map(({ name }) => name);
const special = schema.getPossibleTypes(job).map((type) => `... on ${type.name} { ${selection(type, shared)} }`);
const jobFields = `__typename ... on Job { ${selection(job)} } ${special.join(' ')}`;
const problemFields = selection(schema.getType('JobProblem'));
const possibleTypes = Object.fromEntries(abstract.map((type) => [type.name, membersOf(type)]));
const omit = NOT_SELECTED.map((name) => `'${name}'`).join(' | ');
const selected = schema.getPossibleTypes(job).map(({ name }) => `Selected<${name}>`);

const declarations = `// ${HEAD}

${types.map(declaration).filter(Boolean).join('\n')}
type Selected<T> = T extends unknown ? Omit<T, 'source' | ${omit}> & { source: { name: string } } : never;

/** A job with the fields that the kit selects: all but ${NOT_SELECTED.map((name) => `\`${name}\``).join(', ')}; of its source the name. */
export type WatchedJob = ${selected.join(' | ')};

/** The types of each interface and union, for \`new InMemoryCache({ possibleTypes })\` of Apollo. */
export const possibleTypes: { [name: string]: string[] };
/** The fields that the kit selects of a job. */
export const jobFields: string;
/** The fields that the kit selects of a problem. */
export const problemFields: string;
`;

const code = `// ${HEAD}

export const possibleTypes = ${JSON.stringify(possibleTypes, null, 2)};

export const jobFields = \`
${wrapped(jobFields)}\`;

export const problemFields = '${problemFields}';
`;

/** A long selection in lines. */
function wrapped(text) {
  const lines = [''];
  for (const word of text.split(' ')) {
    if (lines.at(-1).length + word.length > 100) lines.push('');
    lines.push(`${lines.pop()} ${word}`);
  }
  return lines.map((line) => `  ${line.trim()}`).join('\n');
}

const enums = types.filter(isEnumType).map((type) =>
  `${type.name} = Literal[\n${type.getValues().map(({ name }) => `    "${name}",`).join('\n')}\n]`);
const python = `"""${HEAD}"""

from typing import Literal

${enums.join('\n')}

#: The types of each interface and union.
POSSIBLE_TYPES: dict[str, list[str]] = {
${Object.entries(possibleTypes).map(([name, members]) => `    "${name}": [${members.map((one) => `"${one}"`).join(', ')}],`).join('\n')}
}

#: The fields that the kit selects of a job.
JOB_FIELDS = """
${wrapped(jobFields)}"""

#: The fields that the kit selects of a problem.
PROBLEM_FIELDS = "${problemFields}"
`;

const files = { 'typescript/schema.d.ts': declarations, 'typescript/schema.js': code, 'python/jobgate_client/schema.py': python };
let differs = false;
for (const [name, text] of Object.entries(files)) {
  const path = new URL(name, import.meta.url);
  let before = '';
  try {
    before = readFileSync(path, 'utf8');
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
  if (before === text) continue;
  differs = true;
  if (process.argv.includes('--check')) console.error(`clients/${name} does not match schema/schema.graphql: run node clients/generate.mjs`);
  else writeFileSync(path, text);
}
if (differs && process.argv.includes('--check')) process.exitCode = 1;
