// Runs the module of this crate: node run.mjs MODULE.wasm MODEL.gguf PROMPT MAX_TOKENS
// Text on stdout; what goes wrong on stderr, with exit code 1.
import { readFile } from "node:fs/promises";

const fail = (message) => {
    console.error(`run.mjs: ${message}`);
    process.exit(1);
};

const args = process.argv.slice(2);
if (args.length !== 4) fail("usage: node run.mjs MODULE.wasm MODEL.gguf PROMPT MAX_TOKENS");
const [modulePath, modelPath, prompt, tokens] = args;

const module = await WebAssembly.compile(await readFile(modulePath));
const imports = WebAssembly.Module.imports(module);
if (imports.length > 0) {
    // A browser's plain instantiation has nothing to give; something that needs a clock or threads has come in.
    fail(`the module asks for ${imports.map((i) => `${i.module}.${i.name}`).join(", ")}; it may import nothing`);
}
const { exports } = await WebAssembly.instantiate(module);

const give = (bytes) => {
    const address = exports.alloc(bytes.length) >>> 0;
    if (address === 0) fail(`no memory for ${bytes.length} bytes`);
    // The memory's buffer is another one after every growth, so it is asked for anew each time.
    new Uint8Array(exports.memory.buffer, address, bytes.length).set(bytes);
    return [address, bytes.length];
};
const answer = () => {
    const bytes = new Uint8Array(exports.memory.buffer, exports.text_ptr() >>> 0, exports.text_len());
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
};

const model = give(await readFile(modelPath));
const text = give(new TextEncoder().encode(prompt));
let status;
try {
    status = exports.generate(...model, ...text, Number(tokens));
} catch (trap) {
    fail(`${trap}: ${answer()}`);
}
if (status !== 0) fail(answer());
process.stdout.write(answer() + "\n");
