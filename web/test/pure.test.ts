import assert from "node:assert/strict";
import test from "node:test";
import { Backoff } from "../src/backoff";
import { labelOf, placeOf } from "../src/place";
import { parseServerMessage } from "../src/wire";

test("the wait doubles up to its cap and never falls below half of it", () => {
  const backoff = new Backoff();
  const longest = Array.from({ length: 8 }, () => backoff.next(0, 1));
  assert.deepEqual(longest, [500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
  assert.equal(backoff.next(0, 0), 7500);
});

test("only a connection that held starts the count anew", () => {
  const backoff = new Backoff();
  for (let attempt = 0; attempt < 5; attempt += 1) backoff.next(0, 1);
  backoff.connected(0);
  assert.equal(backoff.next(1_000, 1), 15_000);
  backoff.connected(2_000);
  assert.equal(backoff.next(60_000, 1), 500);
});

test("a port's address has its label before the gitspace's", () => {
  const place = placeOf({ protocol: "http:", hostname: "my-app-a1b2c3.localhost", host: "my-app-a1b2c3.localhost:7080" });
  assert.equal(place.name, "my-app");
  assert.equal(place.portUrl(3000), "http://3000--my-app-a1b2c3.localhost:7080/");
});

test("an address has no place for a port's label", () => {
  for (const hostname of ["127.0.0.1", "localhost", "[::1]"]) {
    assert.equal(placeOf({ protocol: "http:", hostname, host: `${hostname}:1` }).portUrl(3000), null);
  }
});

test("messages that are not the server's are refused", () => {
  assert.equal(parseServerMessage("nonsense"), null);
  assert.equal(parseServerMessage('{"type":"attached","position":-1,"snapshot":true,"size":{}}'), null);
  assert.equal(parseServerMessage('{"type":"from_the_future"}'), null);
  assert.deepEqual(parseServerMessage('{"type":"exited","exit_code":3}'), { type: "exited", exit_code: 3 });
});

test("a tab's label leaves out what is the same in every tab", () => {
  assert.equal(labelOf("developer@3d1d1d9b0e9b: ~/app"), "~/app");
  for (const title of ["vim", "user@host: ", "ssh me@there"]) assert.equal(labelOf(title), title);
});
