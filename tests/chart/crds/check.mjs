// Judges custom resources, one JSON object a line on standard input, by the schemas of their own definitions. An object of another kind
// than these is a fault, so that none goes unjudged.
import { createInterface } from "node:readline";
import { ExternalSecret } from "@kubernetes-models/external-secrets/external-secrets.io/v1/ExternalSecret";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const known = {
  "external-secrets.io/v1/ExternalSecret": ExternalSecret,
  "gateway.networking.k8s.io/v1/HTTPRoute": HTTPRoute,
  "monitoring.coreos.com/v1/PrometheusRule": PrometheusRule,
  "monitoring.coreos.com/v1/ServiceMonitor": ServiceMonitor,
};

// The schemas leave unknown fields be, as the API server drops them. A field that its validation never reads is one.
function watched(value, path, unread) {
  if (typeof value !== "object" || value === null) return value;
  const fields = new Map(Object.entries(value).map(([key, inner]) => [key, watched(inner, `${path}.${key}`, unread)]));
  for (const key of fields.keys()) unread.add(`${path}.${key}`);
  return new Proxy(value, {
    get(target, key) {
      unread.delete(`${path}.${String(key)}`);
      return fields.has(key) ? fields.get(key) : target[key];
    },
  });
}

function faults(object, kind) {
  if (!known[kind]) return ["no schema here knows this kind"];
  const unread = new Set();
  try {
    // Not by its constructor, which would read every field.
    known[kind].prototype.validate.call(watched(object, "", unread));
  } catch (fault) {
    return [fault.message];
  }
  return [...unread].map((path) => `${path} is not a field`);
}

let judged = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const object = JSON.parse(line);
  const kind = `${object.apiVersion}/${object.kind}`;
  const found = faults(object, kind);
  judged += 1;
  if (found.length > 0) process.exitCode = 1;
  for (const fault of found) console.log(`${kind} ${object.metadata?.name}: ${fault}`);
}
console.error(`${judged} custom resources judged`);
