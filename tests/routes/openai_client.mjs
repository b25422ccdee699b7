// What the official JavaScript client sees of the service: argv holds its base URL and a key; prints one JSON object.
import OpenAI from "openai";

const [, , baseURL, apiKey] = process.argv;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Say hello." }];

const whole = await client.chat.completions.create({ model: "auto", messages, max_completion_tokens: 20 });
let streamed = "";
let usage = null;
const stream = await client.chat.completions.create({
  model: "auto", messages, max_tokens: 20, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
const embedding = await client.embeddings.create({ model: "auto", input: "a cat" });
const models = [];
for await (const model of client.models.list()) models.push(model.id);
const errors = [];
for (const ask of [
  () => client.chat.completions.create({ model: "nobody/nothing", messages }),
  () => client.chat.completions.create({ model: "auto", messages, temperature: 3 }),
  () => new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).models.list(),
]) {
  try {
    await ask();
  } catch (error) {
    errors.push([error.constructor.name, error.code, error.param]);
  }
}
console.log(JSON.stringify({
  text: whole.choices[0].message.content, total: whole.usage.total_tokens, streamed, completion: usage.completion_tokens,
  dimensions: embedding.data[0].embedding.length, models, errors,
}));
