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

let judged = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const object = JSON.parse(line);
  const kind = `${object.apiVersion}/${object.kind}`;
  try {
    if (!known[kind]) throw new Error("is of a kind that no schema here knows");
    new known[kind](object).validate();
    judged += 1;
  } catch (fault) {
    console.log(`${kind} ${object.metadata?.name}: ${fault.message}`);
    process.exitCode = 1;
  }
}
console.error(`${judged} custom resources judged`);
