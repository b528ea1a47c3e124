// The contract as others read it: ajv compiles every event schema and validates every example; the AsyncAPI parser reads the
// document that is made of them.
//
//   node schemas.mjs JUDGES_FOLDER EVENTS_FOLDER < asyncapi.json

import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [judges, events] = process.argv.slice(2);
const require = createRequire(join(judges, "package.json"));
const Ajv = require("ajv/dist/2020").default;
const formats = require("ajv-formats").default;
const { Parser } = require("@asyncapi/parser");

const problems = [];
const read = (name) => JSON.parse(readFileSync(join(events, name), "utf8"));
let counted = 0;
for (const name of readdirSync(events).filter((name) => name.endsWith(".schema.json")).sort()) {
  const schema = read(name);
  const ajv = new Ajv({ strict: true, strictTypes: false, strictRequired: false, allErrors: true });
  formats(ajv);
  const own = new Set();
  JSON.stringify(schema, (key, value) => {
    if (key.startsWith("x-")) own.add(key);
    return value;
  });
  own.forEach((keyword) => ajv.addKeyword(keyword));
  try {
    const validate = ajv.compile(schema);
    const example = read(name.replace(".schema.json", ".example.json"));
    if (!validate(example.data)) problems.push(`${name}: its example: ${ajv.errorsText(validate.errors)}`);
    const broken = structuredClone(example.data);
    delete broken[schema.required[0]];
    if (validate(broken)) problems.push(`${name}: accepts an event without ${schema.required[0]}`);
    counted += 1;
  } catch (error) {
    problems.push(`${name}: ${error.message}`);
  }
}

const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
for (const diagnostic of diagnostics.filter((diagnostic) => diagnostic.severity === 0)) {
  problems.push(`asyncapi: ${diagnostic.path.join(".")}: ${diagnostic.message}`);
}
if (document) console.log(`${counted} schemas, ${document.messages().length} messages, ${document.operations().length} operations`);
else problems.push("asyncapi: no document");
problems.forEach((problem) => console.error(problem));
process.exit(problems.length === 0 ? 0 : 1);
