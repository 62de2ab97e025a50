// Runs every test beside this file; TypeScript is read as it is asked for.
const { readdirSync, readFileSync } = require('node:fs');
const ts = require('typescript');

const compilerOptions = {
  esModuleInterop: true,
  jsx: ts.JsxEmit.React,
  module: ts.ModuleKind.CommonJS,
  target: ts.ScriptTarget.ES2020
};
require.extensions['.ts'] = (module, fileName) => {
  const { outputText } = ts.transpileModule(readFileSync(fileName, 'utf8'), {
    compilerOptions,
    fileName
  });
  module._compile(outputText, fileName);
};

for (const name of readdirSync(__dirname)) {
  if (name.endsWith('.test.ts')) {
    require(`./${name}`);
  }
}
