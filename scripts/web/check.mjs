// Vectors of an artifact by onnxruntime-web (WebAssembly) or by transformers.js, as the last line of standard output.
// node check.mjs PACKAGES ARTIFACT PROGRAM, with {texts, feeds} on standard input; feeds are the rows of padded inputs.
// One program a process: both register themselves as the backend of onnxruntime-common.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname } from "node:path";

const [packages, artifact, program] = process.argv.slice(2);
const require = createRequire(`${packages}/package.json`);
const { texts, feeds } = JSON.parse(readFileSync(0, "utf8"));

function answer(output) {
  const [rows, width] = output.dims;
  const vectors = Array.from({ length: rows }, (_, row) => Array.from(output.data.slice(row * width, (row + 1) * width)));
  const { version } = JSON.parse(readFileSync(`${packages}/node_modules/${program}/package.json`, "utf8"));
  console.log(JSON.stringify({ version, vectors }));
}

async function byOnnxRuntimeWeb() {
  const ort = require("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  const data = `${artifact}/onnx/model.onnx_data`;
  const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(`${artifact}/onnx/model.onnx`)), {
    executionProviders: ["wasm"],
    externalData: existsSync(data) ? [{ path: basename(data), data: new Uint8Array(readFileSync(data)) }] : [],
  });
  const inputs = Object.fromEntries(
    session.inputNames.map((name) => {
      const rows = feeds[name];
      return [name, new ort.Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0].length])];
    }),
  );
  answer((await session.run(inputs, ["sentence_embedding"])).sentence_embedding);
}

async function byTransformersJs() {
  const { AutoModel, AutoTokenizer, env } = require("@huggingface/transformers");
  env.allowRemoteModels = false;
  env.localModelPath = dirname(artifact);
  const tokenizer = await AutoTokenizer.from_pretrained(basename(artifact));
  const outside = existsSync(`${artifact}/onnx/model.onnx_data`);
  const options = { dtype: "fp32", use_external_data_format: outside };
  const model = await AutoModel.from_pretrained(basename(artifact), options);
  const output = await model(tokenizer(texts, { padding: true, truncation: true }));
  answer(output.sentence_embedding);
}

await { "onnxruntime-web": byOnnxRuntimeWeb, "@huggingface/transformers": byTransformersJs }[program]();
