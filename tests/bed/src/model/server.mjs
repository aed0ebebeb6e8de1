// A small model behind the chat-completions protocol: `POST /v1/chat/completions`, whole or as a stream. It calls no
// tools. Arguments: the folder whose `node_modules` has the runtime, and the file of the weights. It prints its base
// URL, and ends once its standard input does.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";

const [runtime, weights] = process.argv.slice(2);
const { getLlama, LlamaLogLevel } = await import(createRequire(`${runtime}/`).resolve("node-llama-cpp"));

const NAME = "smollm2-135m-instruct";
// What the model was trained with.
const CONTEXT = 2048;
const BODY_BYTES = 1 << 20;

const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: weights });
// Two threads wait for each other at every layer, which takes for ever on a busy machine.
const context = await model.createContext({ contextSize: CONTEXT, threads: 1 });
const sequence = context.getSequence();
const END = model.tokenize("<|im_end|>", true)[0];

/** A conversation as the tokens of its template. What is said cannot pass for the marks between the messages. */
function templated(messages) {
  const mark = (text) => model.tokenize(text, true);
  const said = messages.flatMap(({ role, content }) =>
    [...mark("<|im_start|>"), ...model.tokenize(`${role}\n${content ?? ""}`), ...mark("<|im_end|>"), ...mark("\n")]);
  return [...said, ...mark("<|im_start|>"), ...model.tokenize("assistant\n")];
}

async function read(request) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > BODY_BYTES) throw new Error(`a body has at most ${BODY_BYTES} bytes`);
    parts.push(part);
  }
  return JSON.parse(Buffer.concat(parts).toString("utf8"));
}

/** Answers one request; `say` hears each piece. */
async function complete(asked, prompt, say, gone) {
  const limit = Math.min(asked.max_completion_tokens ?? asked.max_tokens ?? 256, CONTEXT - prompt.length);
  const sampling = { temperature: asked.temperature ?? 0.2, topP: asked.top_p ?? 0.9, repeatPenalty: false };
  const tokens = [];
  let text = "", finish = "length";
  await sequence.clearHistory();
  for await (const token of sequence.evaluate(prompt, { ...sampling, yieldEogToken: true })) {
    if (token === END || model.isEogToken(token)) finish = "stop";
    if (finish === "stop" || gone()) break;
    tokens.push(token);
    const whole = model.detokenize(tokens);
    // A character may be spread over tokens.
    if (!whole.endsWith("\ufffd")) {
      say(whole.slice(text.length));
      text = whole;
    }
    if (tokens.length >= limit) break;
  }
  const usage = { prompt_tokens: prompt.length, completion_tokens: tokens.length };
  return { text, finish, usage: { ...usage, total_tokens: prompt.length + tokens.length } };
}

async function answer(request, response) {
  const send = (status, body) =>
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  const refuse = (status, message) => send(status, { error: { message } });
  if (request.method !== "POST" || request.url !== "/v1/chat/completions") return refuse(404, "there is nothing");
  let asked, prompt;
  try {
    asked = await read(request);
    if (asked.tools?.length) throw new Error("this model calls no tools");
    prompt = templated(asked.messages);
    if (prompt.length >= CONTEXT) throw new Error(`the messages have ${prompt.length} tokens of ${CONTEXT}`);
  } catch (error) {
    return refuse(400, error.message);
  }
  const head = { id: `chatcmpl-${randomUUID()}`, created: Math.floor(Date.now() / 1000), model: NAME };
  const piece = (choices, more) =>
    response.write(`data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", choices, ...more })}\n\n`);
  const say = (content) => {
    if (asked.stream) piece([{ index: 0, delta: { role: "assistant", content }, finish_reason: null }]);
  };
  if (asked.stream) response.writeHead(200, { "content-type": "text/event-stream" });
  const { text, finish, usage } = await complete(asked, prompt, say, () => response.destroyed);
  if (!asked.stream) {
    const choices = [{ index: 0, message: { role: "assistant", content: text }, finish_reason: finish }];
    return send(200, { ...head, object: "chat.completion", choices, usage });
  }
  piece([{ index: 0, delta: {}, finish_reason: finish }]);
  if (asked.stream_options?.include_usage) piece([], { usage });
  response.end("data: [DONE]\n\n");
}

// There is one sequence, so requests are answered one after the other.
let last = Promise.resolve();
const server = createServer((request, response) => {
  last = last.then(() => answer(request, response)).catch((error) => response.destroy(error));
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/v1`));
process.stdin.resume().on("end", () => process.exit());
