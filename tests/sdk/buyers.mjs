// Node's clients: does the task that standard input names, and prints what came of it as JSON. See buyers.py.
import { readFileSync } from "node:fs";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateText, streamText } from "ai";
import OpenAI from "openai";

const { task, base, key, chat, embedding, cases } = JSON.parse(readFileSync(0, "utf8"));

// Both make 2 plain calls, 2 streamed ones and an embedding; they return how many of each were answered.
const tasks = {
  async openai() {
    const client = new OpenAI({ baseURL: base, apiKey: key });
    for (let i = 0; i < 2; i++) {
      const answer = await client.chat.completions.create(chat);
      if (!answer.choices[0].message.content) throw new Error("an empty answer");
      let chunks = 0;
      for await (const _ of await client.chat.completions.create({ ...chat, stream: true })) chunks++;
      if (chunks < 2) throw new Error("not streamed");
    }
    const { data } = await client.embeddings.create({ model: embedding, input: "hi" });
    if (data[0].embedding.length < 100) throw new Error("no embedding");
    const models = [];
    for await (const model of client.models.list()) models.push(model.id);
    return { chats: 4, embeddings: 1, models };
  },

  async ai() {
    const provider = createOpenAICompatible({ name: "tollgate", baseURL: base, apiKey: key });
    const wanted = { model: provider(chat.model), prompt: "Say hi", maxOutputTokens: chat.max_tokens };
    for (let i = 0; i < 2; i++) {
      if (!(await generateText(wanted)).text) throw new Error("an empty answer");
      let parts = 0;
      for await (const _ of streamText(wanted).textStream) parts++;
      if (parts < 1) throw new Error("not streamed");
    }
    const { embedding: vector } = await embed({ model: provider.embeddingModel(embedding), value: "hi" });
    if (vector.length < 100) throw new Error("no embedding");
    return { chats: 4, embeddings: 1 };
  },

  // Reads three chunks of a long answer and hangs up.
  async leave() {
    const client = new OpenAI({ baseURL: base, apiKey: key });
    const stream = await client.chat.completions.create({ ...chat, max_tokens: 1500, ignore_eos: true, stream: true });
    let chunks = 0;
    for await (const _ of stream) if (++chunks === 3) break;
    return { chats: 1 };
  },

  refused_openai: () => Promise.all(cases.map(({ id, key, call }) => {
    const client = new OpenAI({ baseURL: base, apiKey: key, defaultHeaders: { "x-request-id": id } });
    return refused(() => client.chat.completions.create(call));
  })),

  refused_ai: () => Promise.all(cases.map(({ id, key, call }) => {
    const headers = { "x-request-id": id };
    const provider = createOpenAICompatible({ name: "tollgate", baseURL: base, apiKey: key, headers });
    const wanted = { model: provider(call.model), prompt: call.messages[0].content };
    return refused(() => (call.stream ? streamed(wanted) : generateText(wanted)));
  })),
};

async function streamed(wanted) {
  let failed = null;
  await streamText({ ...wanted, onError: ({ error }) => (failed = error) }).consumeStream();
  if (failed) throw failed;
}

// The error's class, status, code and request id.
async function refused(call) {
  try {
    await call();
    return null;
  } catch (error) {
    const last = error.lastError ?? error; // ai wraps what it has tried again
    const id = last.requestID ?? last.responseHeaders?.["x-request-id"];
    return [error.constructor.name, last.status ?? last.statusCode, last.code ?? last.data?.error?.code, id];
  }
}

console.log(JSON.stringify(await tasks[task]()));
